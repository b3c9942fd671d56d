"""Check on a machine with an NVIDIA GPU what the tests pretend: one GPU a run, two runs at once, costs of bf16 steps.

python -m benchmarks.gpu_check [--save FILE.json]       less than ten minutes on one GPU; exit status 1: a check failed
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from benchmarks import step_cost
from lorta.config.places import CONF
from lorta.launch.local import run_all
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.system.gpus import visible_gpus
from lorta.training.trainer import OwnDataOrder

RUNS = ("task=glue/rte", "trainer=smoke", "adapter=lora,lorta", "trainer.precision=fp32,bf16")
FILES = ("predictions.jsonl", "adapter/*.safetensors")
NO_GPU = "There is no GPU here that CUDA can use, so nothing was checked."
Figures = dict[str, Any]


class CheckFailed(Exception):
    """Something is not as the documentation says."""


def data_parallel() -> Figures:
    """Make a trainer for a process that sees two GPUs. Raises CheckFailed if it would split batches over them."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, report_to=[], disable_tqdm=True)
        before = arguments.n_gpu
        arguments._n_gpu = 2
        model = nn.Linear(1, 1)
        trainer = OwnDataOrder(model=model, args=arguments)
        wrapped = trainer._wrap_model(model)
    if isinstance(wrapped, nn.DataParallel) or arguments.n_gpu > 1:
        raise CheckFailed(f"a trainer wraps its model in {type(wrapped).__name__} and counts {arguments.n_gpu} GPUs")
    return {"gpus_that_transformers_sees": before, "gpus_that_a_trainer_uses": arguments.n_gpu}


def runs(folder: Path, workers: int, overrides: Sequence[str] = RUNS) -> tuple[dict[str, RunRecord], float]:
    """Do some runs, so many at once, in a store of their own; return their records by run id, and the seconds."""
    specs = planned(folder, overrides)
    begun = time.perf_counter()
    records = {record.run_id: record for record in run_all(specs, workers) if record is not None}
    for record in records.values():
        if record.status != "success":
            raise CheckFailed(f"run {record.run_id}: {record.failure.message if record.failure else record.status}")
    return records, time.perf_counter() - begun


def planned(folder: Path, overrides: Sequence[str]) -> tuple[RunSpec, ...]:
    """Return the runs of a store in `folder`. Raises CheckFailed."""
    places = [f"runtime.{name}={folder / name}" for name in ("runs", "results")]
    plan = make_plan([*overrides, *places, f"runtime.cache={folder.parent / 'cache'}"], True, CONF)
    if plan.problems:
        raise CheckFailed("; ".join(plan.problems))
    return plan.specs


def repeated_runs(folder: Path, workers: tuple[int, int] = (1, 2), overrides: Sequence[str] = RUNS) -> Figures:
    """Do the same runs one after another, then two at once on one GPU, and compare what they leave, byte by byte.

    Raises CheckFailed for other bytes, for runs that did not overlap, and for a run that saw several GPUs.
    """
    (alone, alone_s), (beside, beside_s) = (
        runs(folder / name, number, overrides) for name, number in zip(("alone", "beside"), workers, strict=True)
    )
    left = [{name: _left(folder / place / "runs" / name) for name in alone} for place in ("alone", "beside")]
    others = [run_id for run_id in alone if left[0][run_id] != left[1][run_id] or len(left[0][run_id]) < 2]
    if others:
        raise CheckFailed(f"repeated runs left other bytes: {', '.join(others)}")
    if workers[1] > 1 and not any(_overlapping(list(beside.values()))):
        raise CheckFailed("no two runs were at work at the same time")
    seen = {record.hardware.gpu_count for record in beside.values() if record.hardware is not None}
    if max(seen) > 1:
        raise CheckFailed(f"a run saw {max(seen)} GPUs")
    return {
        "identical_runs": len(alone),
        "one_at_a_time_s": round(alone_s, 1),
        "two_at_once_s": round(beside_s, 1),
        "peak_reserved_mib": {run_id: _peak(record) for run_id, record in alone.items()},
    }


def _left(folder: Path) -> dict[str, bytes]:
    """Return the predictions and the trained weights in a run's folder, by name."""
    return {path.name: path.read_bytes() for pattern in FILES for path in folder.glob(pattern)}


def _overlapping(records: Sequence[RunRecord]) -> Iterator[bool]:
    spans = sorted((record.started_at or "", record.ended_at or "") for record in records)
    return (later[0] < earlier[1] for earlier, later in pairwise(spans))


def _peak(record: RunRecord) -> float | None:
    peak = record.memory.train_peak_reserved_bytes if record.memory else None
    return None if peak is None else round(peak / 2**20, 1)


def step_ratios(shapes: Sequence[str], ranks: Sequence[int], rounds: int, device: str) -> list[Figures]:
    """Return for each shape, rank and method the time of a bf16 step, to LoRA's and the floor's, and its peak."""
    return [
        row
        for shape in shapes
        for rank in ranks
        for row in step_cost.measure(shape, rank, rounds, device, torch.bfloat16)
    ]


def main() -> int:
    """Do all checks, print the figures of each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    if not visible_gpus() or not torch.cuda.is_available():
        print(NO_GPU)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        checks = {
            "data_parallel": data_parallel,
            "repeated_runs": lambda: repeated_runs(Path(folder)),
            "step_ratios": lambda: step_ratios(("minilm", "roberta-base"), (8, 64), 15, "cuda"),
        }
        results: Figures = {"gpu": torch.cuda.get_device_name(0)}
        failed = False
        for name, check in checks.items():
            begun = time.perf_counter()
            try:
                results[name] = check()
            except CheckFailed as error:
                results[name], failed = f"FAILED: {error}", True
            print(f"{name} ({time.perf_counter() - begun:.0f} s): {json.dumps(results[name], indent=1)}", flush=True)
    if arguments.save:
        arguments.save.write_text(json.dumps(results, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
