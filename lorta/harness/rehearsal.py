"""Loads what a sweep's runs will load, in the process that their workers are forked from.

What is imported, cached and parsed by then is shared by all workers and costs no run any time; weights are in any case,
being pages of their file.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lorta.harness.backbone import find_model, keep_tokenizer
from lorta.harness.build import build
from lorta.harness.quiet import be_quiet
from lorta.harness.spec import ModelSettings, RunSpec
from lorta.harness.task import Task

VARIABLE = "LORTA_REHEARSAL"  # of the environment: the server of workers imports modules, it takes no arguments
MOST_BYTES = 2**30  # of weights; beside loading more, the rest of a start is nothing


def programme(specs: Sequence[RunSpec]) -> str:
    """Return the pairs of task and model of these runs, for `rehearse`."""
    pairs = {spec.settings.model.model_dump_json(): spec for spec in specs}
    return json.dumps([[spec.settings.task, json.loads(model)] for model, spec in pairs.items()])


def rehearse(text: str) -> None:
    """Load each model of a programme once, with its task's head, and keep its tokenizer.

    A model that cannot be loaded is left to its run, which says why.
    """
    import torch

    torch.set_num_threads(1)  # a pool of threads would be missing in forked processes
    be_quiet()
    for task, model in json.loads(text):
        with suppress(Exception):
            _load(build(task), ModelSettings.model_validate(model))


def _load(task: Task, model: ModelSettings) -> None:
    files = find_model(model)
    weights = Path(files.location).glob("*.safetensors")  # of a hub's repository there are none here
    if files.quantization is None and 0 < sum(file.stat().st_size for file in weights) <= MOST_BYTES:
        task.load_backbone(files, model.dtype)
    keep_tokenizer(files)
