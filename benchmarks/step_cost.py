"""Time one training step of LoRTA, PEFT's LoRA, the frozen floor and the released dense algorithm on q, k, v and o.

python -m benchmarks.step_cost [--shapes minilm ...] [--ranks 8 64] [--rounds 15] [--autocast] [--device cuda]
  [--save FILE.csv]
"""

import argparse
import csv
from pathlib import Path

import torch

from benchmarks.interleaved import StepCost, measure_steps
from benchmarks.step_subjects import METHODS, SHAPES, training_step
from lorta.system.provenance import code, hardware


def measure(
    shape: str, rank: int, rounds: int, device: str, dtype: torch.dtype, autocast: bool = False
) -> list[dict[str, object]]:
    """Return one row per method, all timed in turn."""
    subjects = {method: training_step(method, shape, rank, device, dtype, autocast) for method in METHODS}
    costs = measure_steps({method: step for method, (step, _) in subjects.items()}, rounds)
    common = {
        "shape": shape,
        "rank": rank,
        "device": device,
        "dtype": "bfloat16 autocast" if autocast else str(dtype).removeprefix("torch."),
    }
    return [common | figures(costs, method, **subjects[method][1]) for method in METHODS]


def figures(costs: dict[str, StepCost], method: str, parameters: int, held_bytes: int) -> dict[str, object]:
    """Return what is reported of one method.

    Overhead is what it adds to the floor's time, as a share of what LoRA adds; peak memory is that of weights, moments
    and everything alive in a step.
    """
    cost, lora, floor = costs[method], costs["lora"], costs["floor"]
    added, loras = cost.ratio(floor) - 1, lora.ratio(floor) - 1
    return {
        "method": method,
        "median_ms": round(1000 * cost.median_s, 1),
        "to_lora": round(cost.ratio(lora), 3),
        "to_floor": round(cost.ratio(floor), 3),
        "overhead_to_lora": round(added / loras, 3) if loras > 0 else None,
        "dense_to_it": round(costs["dense"].ratio(cost), 3),
        "peak_mib": round((held_bytes + cost.peak_bytes) / 2**20, 1),
        "parameters": parameters,
    }


def save(rows: list[dict[str, object]], file: Path) -> None:
    """Append the rows to a CSV file, with the code and machine they come from."""
    source = {"commit": code().git_sha, "dirty": code().git_dirty, "machine": hardware().cpu}
    fresh = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "threads", *source], lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(row | source | {"threads": torch.get_num_threads()} for row in rows)


def show(rows: list[dict[str, object]], file: Path | None) -> None:
    """Print the rows, and save them where a file is given."""
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if file:
        save(rows, file)


def main() -> None:
    """Measure every shape and rank; print one row per method and save them when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--autocast", action="store_true", help="bfloat16 products of float32 weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if arguments.device == "cuda" and not arguments.autocast else torch.float32
    for shape in arguments.shapes:
        for rank in arguments.ranks:
            rows = measure(shape, rank, arguments.rounds, arguments.device, dtype, arguments.autocast)
            show(rows, arguments.save)


if __name__ == "__main__":
    main()
