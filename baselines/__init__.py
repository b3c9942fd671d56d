"""Methods that PEFT does not ship or leaves incomplete, one file or folder each; `conf/adapter` names them."""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {  # where modules were, which records, YAML files and scripts of before name
    "adalora": "peft_methods.adalora",
    "adamss": "peft_methods.adamss",
    "boft": "peft_methods.boft",
    "cara": "tensor.cara",
    "deep_lora": "linear.deep_lora",
    "ether": "linear.ether",
    "extra_losses": "peft_methods.extra_losses",
    "fact": "tensor.fact",
    "frozen_spectrum": "linear.frozen_spectrum",
    "ia3": "peft_methods.ia3",
    "linear_tuner": "linear.tuner",
    "lokr": "peft_methods.lokr",
    "loldu": "linear.loldu",
    "lora_fa": "peft_methods.lora_fa",
    "lora_xs": "linear.lora_xs",
    "lotr": "tensor.lotr",
    "melora": "linear.melora",
    "metatt": "tensor.metatt",
    "nola": "linear.nola",
    "numbers_a_matrix": "linear.numbers_a_matrix",
    "preconditioned_lorta": "tensor.preconditioned_lorta",
    "prompt_tuning": "peft_methods.prompt_tuning",
    "singular_frames": "linear.singular_frames",
    "surm": "linear.surm",
    "svft": "linear.svft",
    "tenslora": "tensor.tenslora",
    "tensor_family": "tensor.family",
    "tensor_places": "tensor.places",
    "tinylora": "peft_methods.tinylora",
    "trainable_tokens": "peft_methods.trainable_tokens",
}


class _Moved(MetaPathFinder, Loader):
    """Imports a module that was moved under its earlier name: the same module, under both names."""

    def __init__(self) -> None:
        self._own: dict[str, Any] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return how to import an earlier name, None for any other."""
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == __name__ and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module where it is now."""
        module = importlib.import_module(f"{__name__}.{MOVED[spec.name.partition('.')[2]]}")
        self._own[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back; it ran when it was imported under its present name."""
        assert module.__spec__ is not None
        module.__spec__ = self._own.pop(module.__spec__.name)


sys.meta_path.append(_Moved())
