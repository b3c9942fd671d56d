"""Draw predicted against known structures of one run, a PNG for each target, from its predictions.jsonl.

python scripts/plot_folds.py runs/SIGNATURE [--out FOLDER] [--targets NAME ...]
"""

import argparse
import json
import sys
from pathlib import Path

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.folding.plots import plot_target


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options; a wrong one ends the process with status 2 and a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a folding run, or its predictions.jsonl")
    parser.add_argument("--out", type=Path, help="folder to write to (default: figures, beside the predictions)")
    parser.add_argument("--targets", nargs="+", help="names of targets (default: all)")
    options = parser.parse_args(arguments)
    options.predictions = options.run / "predictions.jsonl" if options.run.is_dir() else options.run
    if not options.predictions.is_file():
        parser.error(f"there is no {options.predictions}: name the folder of a finished folding run")
    return options


def main() -> int:
    """Print the file of every picture; rows that are no fold or cannot be scored give status 1 and a sentence."""
    options = parse_arguments()
    out = options.out or options.predictions.parent / "figures"
    rows = [json.loads(line) for line in options.predictions.read_text(encoding="utf-8").splitlines()]
    if unknown := set(options.targets or ()) - {row.get("name") for row in rows}:
        print(f"plot_folds: {options.predictions} has no target {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    status = 0
    for row in rows:
        if options.targets and row["name"] not in options.targets:
            continue
        try:
            plot_target(row, out / f"{row['name']}.png")
            print(out / f"{row['name']}.png")
        except (ValueError, KeyError) as error:
            print(f"plot_folds: {row.get('name', 'a row without a name')}: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
