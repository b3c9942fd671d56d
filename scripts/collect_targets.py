"""Write one table of all targets of all folding runs of a store: python scripts/collect_targets.py runs OUT.csv"""

import argparse
import csv
from pathlib import Path

from lorta.records.store import Store


def main() -> None:
    """Put adapter, rank and seed of the record before each line of its run's targets.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the store")
    parser.add_argument("out", type=Path, help="the table, CSV")
    options = parser.parse_args()
    store = Store(options.runs)
    lines: list[list[object]] = []
    header: list[str] = []
    for record in store.records():
        table = store.folder(record.run_id) / "targets.csv"
        if record.adapter is None or not table.is_file():
            continue
        with table.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        lines += [[record.adapter.name, record.adapter.rank, record.seed, *row] for row in rows]
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["adapter", "rank", "seed", *header], *sorted(lines, key=str)])
    print(f"{options.out}: {len(lines)} lines")


if __name__ == "__main__":
    main()
