"""Loads what a sweep's runs will load, in the process that their workers are forked from.

What is imported, cached and parsed by then is shared by all workers and costs no run any time; weights are in any case,
being pages of their file.
"""

import gc
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lorta.api.task import Task
from lorta.config.instantiate import build
from lorta.config.settings import ModelSettings
from lorta.models.locate import find_model
from lorta.models.tokenizer import keep_tokenizer
from lorta.planning.spec import RunSpec
from lorta.system.quiet import be_quiet

VARIABLE = "LORTA_REHEARSAL"  # of the environment: the server of workers imports modules, it takes no arguments
MOST_BYTES = 2**30  # of weights; beside loading more, the rest of a start is nothing
OF_ALL = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "scipy.stats",
    "sklearn.metrics",  # what is imported after the fork is in memory once a worker, and takes time once a run
    "lorta.training.trainer",
    "lorta.runner.execute",
    "lorta.cli.run",  # every process imports what the command's own script does
    "lorta.cli.sweep",
)


def modules(specs: Sequence[RunSpec]) -> list[str]:
    """Return the modules that these runs import: those of all runs, of their models and of the classes they name."""
    settings = {spec.settings.model.model_dump_json(): spec.settings.model for spec in specs}
    kinds = {find_model(model).config.get("model_type") for model in settings.values()}
    of_models = sorted(f"transformers.models.{kind}.modeling_{kind}" for kind in kinds if kind)
    nodes: list[Any] = [part for spec in specs for part in (spec.settings.task, spec.settings.adapter)]
    nodes += [spec.settings.adapter.get("config") or {} for spec in specs]
    targets = {str(node["_target_"]).rpartition(".")[0] for node in nodes if "_target_" in node}
    return [*OF_ALL, *of_models, *sorted(targets)]


def import_all(names: Iterable[str]) -> None:
    """Import modules, faster than an import statement. What cannot be imported is left to its run, which says why."""
    collecting = gc.isenabled()
    gc.disable()  # modules that are being read leave nothing to collect: a seventh of the time
    try:
        for name in names:
            with suppress(Exception):
                import_module(name)
    finally:
        if collecting:
            gc.enable()


def programme(specs: Sequence[RunSpec]) -> str:
    """Return the modules of these runs and their pairs of task and model, for `rehearse`."""
    pairs = {spec.settings.model.model_dump_json(): spec for spec in specs}
    models = [[spec.settings.task, json.loads(model)] for model, spec in pairs.items()]
    return json.dumps({"modules": modules(specs), "models": models})


def rehearse(text: str) -> None:
    """Import the modules of a programme, load each of its models once, with its task's head, and keep its tokenizer.

    A model that cannot be loaded is left to its run, which says why.
    """
    found = json.loads(text)
    import_all(found["modules"])
    import torch

    torch.set_num_threads(1)  # a pool of threads would be missing in forked processes
    be_quiet()
    for task, model in found["models"]:
        with suppress(Exception):
            _load(build(task), ModelSettings.model_validate(model))


def _load(task: Task, model: ModelSettings) -> None:
    files = find_model(model)
    weights = Path(files.location).glob("*.safetensors")  # of a hub's repository there are none here
    if files.quantization is None and 0 < sum(file.stat().st_size for file in weights) <= MOST_BYTES:
        task.load_backbone(files, model.dtype)
    keep_tokenizer(files)
