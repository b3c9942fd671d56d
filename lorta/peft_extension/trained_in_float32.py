"""Holds in float32 what is trained as a copy of a bf16 base's own modules: heads, normalisation layers.

PEFT 0.21.2 holds the weights of tuners in float32 on such a base, and leaves these copies in bf16 (`modules_to_save`,
LN tuning). There a weight of 1.0 has its neighbours 0.004 away, so the steps of an optimizer are rounded off, and
nothing ever moves (findings/bf16_norms_never_move.sh).
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import Tensor, nn

ROUNDED = (torch.bfloat16, torch.float16)


def hold_in_float32(module: nn.Module, keeps_float32: bool = False) -> bool:
    """Turn a module's weights into float32, whatever it is given; return whether any was not.

    Args:
        module: of whose parts each computes in float32 from here on.
        keeps_float32: whether outputs stay float32 (a head's, for the loss), or get the dtype of the input again.
    """
    parts = [part for part in module.modules() if any(w.dtype in ROUNDED for w in part.parameters(recurse=False))]
    for part in parts:
        held = next(weight.dtype for weight in part.parameters(recurse=False) if weight.dtype in ROUNDED)
        for weight in part.parameters(recurse=False):
            if weight.dtype in ROUNDED:
                weight.data = weight.data.float()
        part.register_forward_pre_hook(_widen, with_kwargs=True)
        if not keeps_float32:
            part.register_forward_pre_hook(partial(_note_dtype, held), with_kwargs=True, prepend=True)
            part.register_forward_hook(_narrow)
    return bool(parts)


def _note_dtype(held: torch.dtype, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    given = [value.dtype for value in (*inputs, *named.values()) if _is_floating(value)]
    module.dtype_of_input = given[0] if given else held  # pyright: ignore[reportArgumentType]


def _widen(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    return tuple(map(_float32, inputs)), {name: _float32(value) for name, value in named.items()}


def _narrow(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return output.to(module.dtype_of_input) if _is_floating(output) else output


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _float32(value: Any) -> Any:
    return value.float() if _is_floating(value) and value.dtype in ROUNDED else value


def hold_copies_in_float32(model: nn.Module, head: Iterable[str]) -> list[str]:
    """Turn the trained copies of a PEFT model into float32.

    Args:
        model: a PEFT model.
        head: names of the base's modules that are its head, whose outputs stay float32.

    Returns:
        The full paths of the copies that were held otherwise.
    """
    heads = tuple(f"base_model.model.{name}" for name in head) + tuple(f"base_model.{name}" for name in head)
    return [path for path, copy in _copies(model) if hold_in_float32(copy, path.startswith(heads))]


def read_copies(model: nn.Module, paths: Iterable[str], folder: Path) -> None:
    """Read copies again that PEFT rounded to the base's dtype while it read a saved adapter.

    Raises ValueError when the saved adapter lacks one of their weights.
    """
    file = folder / "adapter_model.safetensors"
    paths = tuple(f"{path}." for path in paths)
    if not paths:
        return
    saved = load_file(file)
    for name, weight in model.named_parameters():
        if name.startswith(paths):
            key = _saved_name(name)
            if key not in saved:
                raise ValueError(f"{file} lacks {key}, which the adapter trained: save it again.")
            weight.data.copy_(saved[key])


def _copies(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield from ((f"{path}.modules_to_save.{name}", copy) for name, copy in module.modules_to_save.items())
        elif isinstance(module, LNTuningLayer):
            yield from ((f"{path}.ln_tuning_layers.{name}", copy) for name, copy in module.ln_tuning_layers.items())


def _saved_name(name: str) -> str:
    """Return a weight's name in the saved file: without the adapter's name, and without PEFT's wrapper of copies."""
    for wrapper, kept in ((".modules_to_save.", "."), (".ln_tuning_layers.", ".ln_tuning_layers.")):
        before, wrapped, rest = name.partition(wrapper)
        if wrapped:
            return before + kept + rest.partition(".")[2]
    return name
