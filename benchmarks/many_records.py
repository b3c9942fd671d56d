"""Print processor time and memory of `lorta status` and `lorta table` over stores of many records, here and elsewhere.

python -m benchmarks.many_records [--counts 1000 10000 100000] [--beside CHECKOUT]    (100,000 records take 1.5 GiB)

The records are those of a committed suite over and over, with other names, seeds and scores, and no predictions.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processor_time import ROOT, Cost, cost, python_of

SUITE = ROOT / "results" / "records" / "embedded.jsonl.gz"
COUNTS = (1_000, 10_000)
SEEDS = 5  # copies of a method share its name in groups of so many
MAIN = "import sys; from lorta.cli.main import main; sys.exit(main())"
COMMANDS = {
    "status": ["status", "--runs", "{store}"],
    "table": ["table", "--runs", "{store}", "--uncommitted", "--results", "{store}/../results"],
}


def copies() -> Iterator[dict[str, Any]]:
    """Yield records without end, as JSON values: the suite's, then its methods under other names and seeds."""
    suite = [json.loads(line) for line in gzip.decompress(SUITE.read_bytes()).decode().splitlines()]
    for number in itertools.count():
        for record in suite:
            yield _copy(record, number)


def _copy(record: dict[str, Any], number: int) -> dict[str, Any]:
    generator = random.Random(f"{record['run_id']} {number}")
    name, seed = f"{record['adapter']['name']}_{number // SEEDS}", record["seed"] + 3 * (number % SEEDS)
    digest = hashlib.sha256(f"{record['run_id']} {number}".encode()).hexdigest()
    cell = hashlib.sha256(f"{record['cell_id']} {number // SEEDS}".encode()).hexdigest()
    metrics = {
        split: {
            metric: score | {"value": (score["value"] or 0) * generator.uniform(0.9, 1), "reason": None}
            for metric, score in scores.items()
        }
        for split, scores in record["metrics"].items()
    }
    config = record["config"] | {"seed": seed, "adapter": record["config"]["adapter"] | {"name": name}}
    return record | {
        "run_id": digest[:12],
        "cell_id": cell[:12],
        "config_hash": digest,
        "seed": seed,
        "config": config,
        "adapter": record["adapter"] | {"name": name},
        "metrics": metrics,
    }


def fill(store: Path, count: int) -> None:
    """Write so many records into a store."""
    for record in itertools.islice(copies(), count):
        folder = store / record["run_id"]
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


def measured(checkout: Path, words: list[str], store: Path) -> Cost:
    """Return what a command costs in a fresh process."""
    filled = [word.format(store=store) for word in words]
    return cost([python_of(checkout), "-c", MAIN, *filled], checkout)


def main() -> None:
    """Fill stores, run the commands, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args()
    checkouts = [ROOT, *([options.beside] if options.beside else [])]
    columns = ["this build: s", "MiB", "the other: s", "MiB"][: 2 * len(checkouts)]
    print(f"| command, records | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "runs"
            fill(store, count)
            for name in options.commands:
                costs = [measured(checkout, COMMANDS[name], store) for checkout in checkouts]
                cells = " | ".join(f"{one.seconds:.1f} | {one.mebibytes:.0f}" for one in costs)
                print(f"| {name}, {count:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
