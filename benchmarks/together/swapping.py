"""Measure what it costs to keep 1, 10 and 100 adapters beside one model: bytes, loading, swapping, copying to a GPU.

python -m benchmarks.together.swapping [--methods lora ...] [--ranks 4 64] [--sizes 1 10 100] [--device cuda]
  [--save CSV]

Adapters of conf/adapter on q, k, v and o of a BERT of MiniLM's size, random weights, no head. One thread. Times are the
process's own processor time on a CPU, elapsed time on a GPU. swapping_table.py makes a table of what was saved.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import BertConfig, BertModel
from transformers.utils import logging

from benchmarks.step_cost import show
from benchmarks.step_subjects import MINILM
from benchmarks.together.many_adapters import clock_of, measure_swapping
from lorta.api.peft_adapter import PeftAdapter
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone


def make_model() -> BertModel:
    """Return the model, always the same."""
    torch.manual_seed(0)
    return BertModel(BertConfig(**MINILM))


def configuration(method: str, rank: int) -> PeftAdapter:
    """Return the method as its YAML describes it. Raises ValueError for a rank that it refuses."""
    problems = Problems()
    words = {"adapter": [method], "rank": [rank], "adapter.projections": [list("qkvo")]}
    cells = compose_cells(words, CONF, problems)
    if problems:
        raise ValueError("\n".join(problems))
    return build(cells[0].config["adapter"])


def measure(method: str, rank: int, sizes: list[int], device: str) -> Iterator[dict[str, object]]:
    """Yield a row for each number of adapters."""
    model, adapter = make_model(), configuration(method, rank)
    backbone = Backbone(model, None, Geometry.from_config(model.config.to_dict()))  # pyright: ignore[reportArgumentType]
    config = adapter.peft_config(backbone, "CAUSAL_LM")  # this task type has no head
    config.task_type, config.modules_to_save = "FEATURE_EXTRACTION", None  # neither head nor norms: the adapter alone
    with tempfile.TemporaryDirectory() as folder:
        counts, costs = measure_swapping(make_model, config, sizes, device, Path(folder))
    common = {"method": method, "rank": rank, "device": device, "clock": clock_of(device)[0], **counts}
    for cost in costs:
        seconds = {"load": cost.load_s, "last_load": cost.last_load_s, "swap": cost.swap_s, "copy": cost.copy_s}
        times = {f"{name}_ms": None if value is None else round(1000 * value, 3) for name, value in seconds.items()}
        yield {**common, "adapters": cost.adapters, **times}


def main() -> None:
    """Measure every method and rank; print a row for each number of adapters and save them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["lora", "vera", "loretta_rep", "lorta"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 64])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for method, rank in ((method, rank) for rank in given.ranks for method in given.methods):
        rows = list(measure(method, rank, given.sizes, given.device))
        show(rows, given.save)


if __name__ == "__main__":
    main()
