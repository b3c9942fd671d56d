"""Compare fp32 and bf16 on a CPU: scores and seconds of five cells on STS-B with MiniLM, seeds 0 to 2.

python -m benchmarks.bf16_cpu --data DATA [--steps 200] [--runs runs/bf16] [--save results/costs/bf16_cpu.csv]

The same command again runs what is missing. Runs of both precisions alternate, one at a time on one thread.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.interleaved import StepCost
from lorta.analysis.statistics import mean, sample_std
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.record import RunRecord
from lorta.runner.execute import execute
from lorta.system.provenance import code, hardware

CELLS = {  # adapter -> (ranks, learning rate)
    "lora": ("1,8", 5.0e-4),
    "lorta": ("11,46", 5.0e-3),
    "vera": ("256", 1.0e-2),
}
PRECISIONS = ("fp32", "bf16")


def records_of(data: Path, steps: int, runs: Path) -> list[RunRecord]:
    """Return the records of all runs, after those that are missing were done."""
    records: list[RunRecord] = []
    for adapter, (ranks, rate) in CELLS.items():
        words = ["model=minilm", "task=glue/stsb", f"adapter={adapter}", f"rank={ranks}", "seed=0,1,2"]
        words += [f"trainer.learning_rate={rate}", "trainer.head_learning_rate=2e-3", f"trainer.max_steps={steps}"]
        words += ["trainer.per_device_train_batch_size=16", "data.max_length=96", f"data.root={data}"]
        words += [f"trainer.precision={','.join(PRECISIONS)}", f"runtime.runs={runs}", f"runtime.cache={runs}/cache"]
        plan = make_plan(words, True, CONF)
        if plan.problems:
            raise SystemExit("\n".join(plan.problems))
        for spec in plan.specs:
            file = spec.folder / "record.json"
            known = RunRecord.from_json(file.read_text(), str(file)) if file.is_file() else None
            record = known if known is not None and known.status == "success" else execute(spec)
            records.append(record)
    return records


def rows_of(records: Sequence[RunRecord]) -> list[dict[str, object]]:
    """Return one row a cell: Pearson correlation times 100 and seconds of training by precision, and their ratio."""
    cells: dict[tuple[str, int | None], list[RunRecord]] = {}
    for record in records:
        assert record.adapter is not None
        cells.setdefault((record.adapter.name, record.adapter.rank), []).append(record)
    return [{"adapter": name, "rank": rank} | _row(of_cell) for (name, rank), of_cell in cells.items()]


def _row(records: Sequence[RunRecord]) -> dict[str, object]:
    row: dict[str, object] = {"seeds": len({record.seed for record in records})}
    costs: dict[str, StepCost] = {}
    for precision in PRECISIONS:
        chosen = sorted(_of(records, precision), key=lambda record: record.seed)
        scored = [record.primary_score for record in chosen if record.seed in _scored_seeds(records)]
        scores = [100 * (score.value or 0.0) for score in scored if score]
        row[f"{precision}_collapsed"] = sum(record.collapsed for record in chosen)
        costs[precision] = StepCost(
            [record.time.train_s for record in chosen if record.time and record.time.train_s], 0
        )
        row[f"{precision}_pearson"], row[f"{precision}_std"] = (
            round(mean(scores), 1),
            round(sample_std(scores) or 0.0, 1),
        )
        row[f"{precision}_train_s"] = round(costs[precision].median_s, 1)
    return row | {"time_ratio": round(costs["bf16"].ratio(costs["fp32"]), 2)}


def _scored_seeds(records: Sequence[RunRecord]) -> set[int]:
    """Return the seeds whose score is defined in both precisions: a constant answer has no correlation."""
    without = {record.seed for record in records if record.primary_score is None or record.primary_score.value is None}
    return {record.seed for record in records} - without


def _of(records: Sequence[RunRecord], precision: str) -> list[RunRecord]:
    return [record for record in records if record.config["trainer"]["precision"] == precision]


def main() -> None:
    """Run, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with glue/stsb")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/bf16"))
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    rows = rows_of(records_of(arguments.data, arguments.steps, arguments.runs))
    source = {"steps": arguments.steps, "commit": code().git_sha, "dirty": code().git_dirty, "machine": hardware().cpu}
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if arguments.save:
        with arguments.save.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*rows[0], *source], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | source for row in rows)


if __name__ == "__main__":
    main()
