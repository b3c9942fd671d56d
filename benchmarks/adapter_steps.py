"""Time one training step of every method beside one of LoRA with as many weights, on MiniLM.

python -m benchmarks.adapter_steps [ADAPTER ...] [--budget 36864] [--rounds 7] [--same-projections]
  [--save results/costs/adapter_steps.csv]

Each method is as conf/adapter has it, at the size nearest to the budget (LoRA r=4: 36,864). A step is forward, backward
and AdamW on 8 rows of 64 tokens in float32, without what the method's callbacks do between steps. Steps of a method and
of LoRA alternate; times are processor time of one thread, the ratio is the median over rounds. With --save, methods
that the file has are left out: the same command again goes on. --same-projections: LoRA adapts those of the method.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import Step, measure_steps
from benchmarks.step_cost import show
from lorta.api.holdout import load_splits
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.system.quiet import be_quiet
from lorta.training.metering import count_parameters

ROWS, TOKENS = 8, 64
BUDGET = 36_864


def specs_of(adapters: Sequence[str], budget: int, cache: Path, *more: str) -> list[RunSpec]:
    """Return one run of each method that can attach. Raises SystemExit for an unknown one."""
    words = [f"adapter={','.join(adapters) or 'glob(*)'}", "model=minilm", "task=glue/sst2", "data.source=embedded"]
    words += [f"budget={budget}", "data.max_train_samples=64", f"runtime.cache={cache}", f"runtime.runs={cache}", *more]
    plan = make_plan(words, True, CONF)
    if plan.problems:
        raise SystemExit("\n".join(plan.problems))
    return list(plan.specs)


def step_of(spec: RunSpec) -> tuple[Step, int]:
    """Return a training step of a method on random words, and how many weights it trains beside the head."""
    torch.manual_seed(0)
    backbone = spec.task.load_backbone(spec.model, "fp32")
    plan = spec.task.plan_data(spec.settings.data, spec.settings.model.data)
    rows = load_splits(spec.task, plan, spec.settings.data, backbone.tokenizer, Path(spec.settings.runtime.cache))
    backbone.rows = rows.train  # for methods that start from data
    backbone.cache = Path(spec.settings.runtime.cache)
    model: Any = spec.adapter.attach(backbone, spec.task.peft_task_type).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    words, labels = torch.randint(1000, 2000, (ROWS, TOKENS)), torch.arange(ROWS) % 2
    batch = {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": labels}

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    params = count_parameters(model, backbone.geometry.architecture)
    return step, params.trainable - params.head


def compare(spec: RunSpec, lora: RunSpec, rounds: int) -> dict[str, object]:
    """Return a row: the method's step, and its ratio to LoRA's."""
    (ours, count), (theirs, loras) = step_of(spec), step_of(lora)
    costs = measure_steps({"ours": ours, "lora": theirs}, rounds, warmup=1, clock=time.process_time)
    return {
        "method": spec.adapter.name,
        "trained": count,
        "lora_trained": loras,
        "ms": round(1000 * costs["ours"].median_s, 1),
        "to_lora": round(costs["ours"].ratio(costs["lora"]), 3),
        "peak_to_lora": round(costs["ours"].peak_bytes / costs["lora"].peak_bytes, 3),
    }


def main() -> None:
    """Measure the methods that are not in the file, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="*", metavar="ADAPTER")
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--same-projections", action="store_true")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        (lora,) = specs_of(["lora"], given.budget, Path(folder))
        for spec in specs_of(given.adapters, given.budget, Path(folder)):
            if given.save and given.save.exists() and spec.adapter.name in _methods(given.save):
                continue
            beside, more = lora, dict[str, object]()
            if given.same_projections and (names := spec.settings.adapter.get("projections")):
                (beside,) = specs_of(["lora"], given.budget, Path(folder), f"adapter.projections=[{','.join(names)}]")
            if given.same_projections:  # a column that the file of the comparison with LoRA's own lacks
                more["projections"] = " ".join(beside.settings.adapter["projections"])
            try:
                row = compare(spec, beside, given.rounds) | more
            except (RuntimeError, ValueError, TypeError) as error:
                print(f"{spec.adapter.name}: not measured, {str(error).splitlines()[0]}", flush=True)
                continue
            show([row], given.save)


def _methods(file: Path) -> set[str]:
    with file.open(newline="") as stream:
        return {row["method"] for row in csv.DictReader(stream)}


if __name__ == "__main__":
    main()
