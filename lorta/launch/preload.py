"""Loads what a sweep's runs will load, in the process that their workers are forked from.

What is imported, cached and parsed by then is shared by all workers and costs no run any time; weights are in any case,
being pages of their file.
"""

import base64
import gc
import pickle
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lorta.api.task import Task
from lorta.models.locate import ModelFiles
from lorta.models.quantization import quantised
from lorta.models.tokenizer import keep_tokenizer
from lorta.planning.spec import RunSpec
from lorta.runner.tracking import WANDB_MODES
from lorta.system import optional_libraries, provenance
from lorta.system.quiet import be_quiet

VARIABLE = "LORTA_PRELOAD"  # of the environment: the server of workers imports modules, it takes no arguments
MOST_BYTES = 2**30  # of weights; beside loading more, the rest of a start is nothing
OF_ALL = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "peft.utils.transformers_weight_conversion",
    "lorta.models.frozen_casts",
    "lorta.peft_extension.trained_in_float32",
    "lorta.training.trainer",
    "lorta.runner.execute",
    "lorta.runner.attempt",
    "pebble.pool.process",
)


class Imports(NamedTuple):
    """The modules that runs import, and which of `optional_libraries.ALL` they use."""

    names: tuple[str, ...]
    libraries: frozenset[str]

    @property
    def left_out(self) -> frozenset[str]:
        """Those that they do not use: nobody can import them in a process for these runs."""
        return frozenset(optional_libraries.ALL) - self.libraries


def imports(specs: Sequence[RunSpec]) -> Imports:
    """Return what these runs import: what all runs do, and what their models, classes, training and scores need.

    What is imported after the fork is in memory once a worker, and takes time once a run.
    """
    kinds = {spec.model.config.get("model_type") for spec in specs}
    of_models = sorted(f"transformers.models.{kind}.modeling_{kind}" for kind in kinds if kind)
    classes = {type(part).__module__ for spec in specs for part in (spec.task, spec.adapter)}
    configs = {str((spec.settings.adapter.get("config") or {}).get("_target_", "")) for spec in specs}
    of_classes = sorted(classes | {name.rpartition(".")[0] for name in configs if name})
    of_runs = sorted({name for spec in specs for name in spec.task.run_modules})
    uses = {
        optional_libraries.BITSANDBYTES: any(quantised(spec.model) for spec in specs),
        optional_libraries.WANDB: any(spec.settings.tracking.mode in WANDB_MODES for spec in specs),
    }
    names = (*OF_ALL, *of_models, *of_classes, *of_runs)
    return Imports(names, frozenset(library for library, used in uses.items() if used))


def import_all(names: Iterable[str], keep: bool = False) -> None:
    """Import modules, faster than an import statement. What cannot be imported is left to its run, which says why.

    With `keep`, garbage collection never looks at what is in memory by then.
    """
    collecting = gc.isenabled()
    gc.disable()  # modules that are being read leave nothing to collect: a seventh of the time
    try:
        for name in names:
            with suppress(Exception):
                import_module(name)
        if keep:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()


def prepare(wanted: Imports) -> None:
    """Import what runs need in a process that does nothing else."""
    for library in wanted.left_out:
        optional_libraries.leave_out(library)
    import_all(wanted.names, keep=True)


def program(specs: Sequence[RunSpec]) -> str:
    """Return the imports of these runs and their pairs of task and model, for `load`, as text."""
    models: dict[str, tuple[Task, ModelFiles, str, bool]] = {}
    for spec in specs:
        key, in_bf16 = spec.settings.model.model_dump_json(), spec.settings.trainer.precision == "bf16"
        in_bf16 |= key in models and models[key][-1]
        models[key] = spec.task, spec.model, spec.settings.model.dtype, in_bf16
    return base64.b64encode(pickle.dumps((imports(specs), list(models.values())))).decode()


def load(text: str) -> None:
    """Import the modules of a program, load each of its models once, with its task's head, and keep its tokenizer.

    Of models that are trained with bf16, the casts of their weights are kept, too.

    A model that cannot be loaded is left to its run, which says why. `text` is this process's own, from `program`.
    """
    wanted, models = pickle.loads(base64.b64decode(text))
    prepare(wanted)
    import torch

    torch.set_num_threads(1)  # a pool of threads would be missing in forked processes
    be_quiet()
    for task, files, dtype, in_bf16 in models:
        with suppress(Exception):
            _load(task, files, dtype, in_bf16)
    provenance.hardware()
    provenance.env_fingerprint()


def _load(task: Task, files: ModelFiles, dtype: str, in_bf16: bool) -> None:
    weights = Path(files.location).glob("*.safetensors")  # of a hub's repository there are none here
    if files.quantization is None and 0 < sum(file.stat().st_size for file in weights) <= MOST_BYTES:
        backbone = task.load_backbone(files, dtype)
        if in_bf16:
            from lorta.models.frozen_casts import keep_casts

            keep_casts(backbone.model)
    keep_tokenizer(files)
