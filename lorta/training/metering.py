"""What a run costs: parameters by kind, seconds by phase, bytes of memory and storage."""

import gc
import hashlib
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.geometry import Architecture
from lorta.records.sections import Memory, Parameters, Storage
from lorta.system import allocator
from lorta.system.run_log import RUN

if TYPE_CHECKING:
    from torch import nn


class Stopwatch:
    """Seconds of wall clock by phase, and the phase that is running (a failure's record names it)."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.cpu_started = time.process_time()
        self.seconds: dict[str, float] = {}
        self.current = "setup"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to a phase, after waiting for the device."""
        if name != self.current or not self.seconds:
            RUN.info("%s begins", name)
        self.current = name
        begun = time.perf_counter()
        try:
            yield
        finally:
            synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    @property
    def wall_s(self) -> float:
        """Seconds since construction."""
        return time.perf_counter() - self.started

    @property
    def cpu_s(self) -> float:
        """Seconds since construction that this process computed, over all of its threads."""
        return time.process_time() - self.cpu_started


def synchronise() -> None:
    """Wait until the GPU, if torch has one, has finished what was asked of it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def is_head(parameter_name: str, architecture: Architecture) -> bool:
    """Return whether a parameter belongs to the classification head."""
    path = parameter_name.removeprefix("base_model.").removeprefix("model.")  # prompt methods have no second prefix
    return architecture.in_head(path)


def weights_in(parameter: "nn.Parameter") -> int:
    """Return the number of weights in a parameter; bitsandbytes' 4-bit ones lie two to a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def count_parameters(model: "nn.Module", architecture: Architecture) -> Parameters:
    """Count scalars, shared ones once. Adapter, head, and what else the method trains (norms) are kept apart."""
    counts = {"adapter": 0, "head": 0, "other_trainable": 0}
    total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # PEFT keeps the frozen original beside a trained copy: the same weights twice
            continue
        total += weights_in(parameter)
        if parameter.requires_grad:
            copied = ".modules_to_save." in name
            kind = "head" if is_head(name, architecture) else "other_trainable" if copied else "adapter"
            counts[kind] += parameter.numel()
    return Parameters(trainable=sum(counts.values()), total=total, **counts)


def trained_tensors(model: "nn.Module") -> dict[str, bytes]:
    """Return name -> SHA-256 of every tensor that is trained, to tell later which of them have moved."""
    import torch

    digests: dict[str, bytes] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            numbers: Any = weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digests[name] = hashlib.sha256(numbers).digest()
    return digests


def require_float32(model: "nn.Module", adapter_name: str) -> None:
    """Raise ValueError for tensors that are trained in less than float32, where small steps are rounded off."""
    trained = {name: weight.dtype for name, weight in model.named_parameters() if weight.requires_grad}
    rounded = [name for name, dtype in trained.items() if dtype.itemsize < 4]
    if rounded:
        raise ValueError(
            f"adapter={adapter_name} trains {len(rounded)} of its {len(trained)} tensors in {trained[rounded[0]]}, "
            f"which rounds the steps of an optimizer off ({', '.join(rounded[:3])}): set model.dtype=fp32, or hold "
            "them in torch.float32 once they are attached."
        )


def measure_memory(baseline_reserved_bytes: int | None) -> Memory:
    """Return the peaks since `reset_memory`; device figures are None without a GPU."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if not torch.cuda.is_available():
        return Memory(host_rss_peak_bytes=host)
    return Memory(
        train_peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        train_peak_reserved_bytes=torch.cuda.max_memory_reserved(),
        baseline_reserved_bytes=baseline_reserved_bytes,
        host_rss_peak_bytes=host,
    )


def reset_memory() -> int | None:
    """Forget the device's peaks and return the bytes reserved now, None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def release_memory() -> None:
    """Give back what nobody refers to any more, the device's cache and the allocator's free pages included."""
    gc.collect()
    allocator.give_back()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_storage(folder: Path) -> Storage:
    """Return the bytes of a saved adapter's weights and configuration."""
    files = [*folder.glob("*.safetensors"), *folder.glob("*.json")]
    return Storage(adapter_bytes=sum(file.stat().st_size for file in files))


def quantile(values: list[float], fraction: float) -> float | None:
    """Return a quantile by linear interpolation, None for no values."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[round(fraction * 100) - 1]


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return seconds to the millisecond, keyed as the record names them."""
    return {f"{name}_s": round(value, 3) for name, value in seconds.items()}
