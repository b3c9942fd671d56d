"""Make a data folder to tune on: its validation split is drawn from the training split, so tuning sees no scored row.

python scripts/holdout.py --root DATA --to tuning_data --rows 500 glue/sst2 glue/stsb
"""

import argparse
import json
import random
from pathlib import Path

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.files import read_lines
from experiments.rows import local_file


def holdout(root: Path, target: Path, task: str, rows: int) -> None:
    """Write TASK/train.jsonl and TASK/validation.jsonl (`rows` rows) below `target`; the task alone fixes the draw."""
    all_rows = [row for _, row in read_lines(local_file(root, task, "train"))]
    random.Random(f"lorta hold-out {task}").shuffle(all_rows)
    for split, part in (("validation", all_rows[:rows]), ("train", all_rows[rows:])):
        file = target / task / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{json.dumps(row)}\n" for row in part))
        print(f"{file}: {len(part)} rows")


def main() -> None:
    """Read the arguments and hold out rows of every task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("tasks", nargs="+")
    arguments = parser.parse_args()
    for task in arguments.tasks:
        holdout(arguments.root, arguments.to, task, arguments.rows)


if __name__ == "__main__":
    main()
