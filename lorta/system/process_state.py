"""What a run may have changed in its process is given back: the next one in the same process starts like the first."""

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

FORGET_PEAK = "5"  # proc(5), clear_refs: the peak of resident memory is the present size from now on


@contextmanager
def restored() -> Iterator[None]:
    """Behind the block, environment, working directory, search path, warnings and torch's settings are as before it.

    Random generators are not among them: each run seeds its own.
    """
    variables, folder, places, collecting = dict(os.environ), os.getcwd(), list(sys.path), gc.isenabled()
    torch_settings = _settings_of_torch()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        os.chdir(folder)
        sys.path[:] = places
        (gc.enable if collecting else gc.disable)()
        _set_torch(torch_settings)


class _Setting(NamedTuple):
    """A global setting of torch: how it is read, how it is set, and what it is where torch is not in memory yet."""

    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]
    from_import: Any


_SETTINGS: dict[str, _Setting] = {
    "threads": _Setting(lambda torch: torch.get_num_threads(), lambda torch, value: torch.set_num_threads(value), None),
    "dtype": _Setting(
        lambda torch: str(torch.get_default_dtype()).removeprefix("torch."),
        lambda torch, value: torch.set_default_dtype(getattr(torch, value)),
        "float32",
    ),
    "device": _Setting(
        lambda torch: str(torch.get_default_device()), lambda torch, value: torch.set_default_device(value), "cpu"
    ),
    "gradients": _Setting(
        lambda torch: torch.is_grad_enabled(), lambda torch, value: torch.set_grad_enabled(value), True
    ),
    "precision": _Setting(
        lambda torch: torch.get_float32_matmul_precision(),
        lambda torch, value: torch.set_float32_matmul_precision(value),
        "highest",
    ),
    "deterministic": _Setting(
        lambda torch: torch.are_deterministic_algorithms_enabled(),
        lambda torch, value: torch.use_deterministic_algorithms(value),
        False,
    ),
    "anomalies": _Setting(
        lambda torch: torch.is_anomaly_enabled(), lambda torch, value: torch.autograd.set_detect_anomaly(value), False
    ),
    "mkldnn": _Setting(
        lambda torch: torch.backends.mkldnn.enabled,
        lambda torch, value: torch.backends.mkldnn.set_flags(value),
        True,
    ),
}


def _settings_of_torch() -> dict[str, Any]:
    """Return torch's global settings; those that it has from its import where it is not in memory yet."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {name: setting.from_import for name, setting in _SETTINGS.items()}
    return {name: setting.get(torch) for name, setting in _SETTINGS.items()}


def _set_torch(settings: dict[str, Any]) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    torch.set_flush_denormal(False)  # nobody can ask whether it is on
    for name, setting in _SETTINGS.items():
        if settings[name] is not None and setting.get(torch) != settings[name]:
            setting.set(torch, settings[name])


def forget_peak() -> None:
    """Let this process's peak of resident memory begin anew, on Linux; it holds from one run to the next otherwise."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
