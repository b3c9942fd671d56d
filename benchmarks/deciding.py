"""Compare what a verdict costs: core-seconds from nothing to the answer on LoRTA and LoRA, two sizes each, on STS-B.

python -m benchmarks.deciding --data DATA [--steps 1080] [--model minilm] [--runs runs/deciding] [--save FILE.csv]

Before: fp32, whole runs of all learning rates, five seeds. Now: bf16, successive halving, seeds until decided. Both ask
whether LoRTA is equivalent to the larger LoRA within a point, at the same error rates. The same command again runs what
is missing. Core-seconds are those of the runs' processes (time.cpu_s of their records), without imports and planning.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorta.analysis.item_scores import stored_items
from lorta.analysis.questions import answer_questions, stated
from lorta.analysis.summary import summarise
from lorta.cli.run import main as run
from lorta.records.record import RunRecord
from lorta.records.store import Store
from lorta.system.provenance import code, hardware

BUDGETS = "20k,73728"  # LoRA r=2 and r=8, LoRTA r=46 and r=168 on MiniLM
WAYS: Mapping[str, tuple[str, ...]] = {
    "before": ("trainer.precision=fp32", "tune.rungs=[1.0]", "seed=0,1,2,3,4"),
    "now": ("trainer.precision=bf16", "seeds=auto", "seeds.least=3", "seeds.most=10"),
}


def words_of(way: str, arguments: argparse.Namespace) -> list[str]:
    """Return the command line of one way."""
    largest = arguments.budgets.rpartition(",")[2]
    return [
        *("-m", "adapter=lora,lorta", f"budget={arguments.budgets}", f"model={arguments.model}", "task=glue/stsb"),
        *("tune=lr", f'compare={{method:lorta,with:"lora budget={largest}",margin:{arguments.margin}}}'),
        *("trainer.head_learning_rate=4e-3", f"trainer.max_steps={arguments.steps}", "data.max_length=96"),
        *("trainer.per_device_train_batch_size=16", f"runtime.name=deciding_{way}", "runtime.workers=1"),
        *(f"runtime.runs={arguments.runs / way}", f"runtime.cache={arguments.runs / 'cache'}"),
        *(f"runtime.results={arguments.runs / 'results'}", *WAYS[way], *arguments.more),
        *([f"data.root={arguments.data}"] if arguments.data else []),
    ]


def row_of(way: str, records: Sequence[RunRecord], verdicts: Sequence[str]) -> dict[str, object]:
    """Return what a way cost and answered; a run without a time, such as one whose loss diverged, is counted apart."""
    known = [record.time.cpu_s for record in records if record.time is not None and record.time.cpu_s is not None]
    trials = sum(record.is_trial for record in records)
    return {
        "way": way,
        "trials": trials,
        "runs": len(records) - trials,
        "seeds": max((len(of) for of in _seeds(records).values()), default=0),
        "core_s": round(sum(known), 1),
        "without_time": len(records) - len(known),
        "verdicts": "; ".join(verdicts),
    }


def _seeds(records: Sequence[RunRecord]) -> dict[str, set[int]]:
    seeds: dict[str, set[int]] = {}
    for record in records:
        if not record.is_trial:
            seeds.setdefault(record.cell_id, set()).add(record.seed)
    return seeds


def ratio(rows: Sequence[Mapping[str, object]]) -> float:
    """Return what is spent now of what was spent before."""
    spent = {str(row["way"]): float(str(row["core_s"])) for row in rows}
    return spent["now"] / spent["before"]


def verdicts_of(records: Sequence[RunRecord], store: Store) -> list[str]:
    """Return the verdict on each question."""
    tables = summarise(records)
    answered = answer_questions(tables, stated(records), stored_items(records, store)) if tables else []
    return [
        f"{of.question.method}: {of.answer.verdict if of.answer else 'no answer'}" for table in answered for of in table
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Run both ways, print the table and the ratio, and save them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with glue/stsb (default: the embedded task)")
    parser.add_argument("--steps", type=int, default=1080)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--budgets", default=BUDGETS, help="two sizes (default: %(default)s)")
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/deciding"))
    parser.add_argument("--save", type=Path, help="such as results/costs/deciding.csv")
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE", help="settings of both ways")
    arguments = parser.parse_args(given)
    rows: list[dict[str, object]] = []
    for way in WAYS:
        if status := run(words_of(way, arguments)):
            return status
        store = Store(arguments.runs / way)
        records = store.records()
        rows.append(row_of(way, records, verdicts_of(records, store)))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(f"core-seconds, now / before: {ratio(rows):.2f}")
    if arguments.save:
        source = {"steps": arguments.steps, "ratio": round(ratio(rows), 3), "model": arguments.model}
        source |= {"commit": code().git_sha, "dirty": code().git_dirty, "machine": hardware().cpu}
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        with arguments.save.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*rows[0], *source], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | source for row in rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
