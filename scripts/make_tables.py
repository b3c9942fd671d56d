"""Make the report of finished runs: results/reports/NAME.{md,csv,runs.csv,tex} and results/figures/NAME.png.

python scripts/make_tables.py [--name NAME] [--runs runs | --records results/records/NAME.jsonl]

Records are exported by `lorta collect`.
"""

import argparse
import sys
from pathlib import Path

from lorta.harness.report import write_report
from lorta.harness.store import Store, read_export


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options; a wrong one ends the process with status 2 and a sentence."""
    parser = argparse.ArgumentParser(description="Tables and a figure from run records.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    source.add_argument("--records", type=Path, help="exported records, one JSON object per line")
    parser.add_argument(
        "--name", help="file name of the report, without an ending (default: that of the records, or runs)"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder to write to (default: results)")
    options = parser.parse_args(arguments)
    options.name = options.name or (options.records or options.runs).name.split(".")[0]
    if Path(options.name).name != options.name:
        parser.error(f"--name must be a file name without folders, got {options.name!r}")
    missing = options.records or options.runs
    if not missing.exists():
        parser.error(f"there is no {missing}: run a sweep first, or name the records with --records or --runs")
    return options


def main() -> int:
    """Write the report and print its Markdown; records that cannot be read or compared give status 2 and a sentence."""
    options = parse_arguments()
    try:
        records = read_export(options.records) if options.records else Store(options.runs).records()
        print(write_report(records, options.name, options.results))
    except ValueError as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
