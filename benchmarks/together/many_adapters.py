"""What many adapters beside one model cost: bytes of each, time to load them, to swap between them, to copy them.

Loading is PEFT's `load_adapter` from a folder, a swap is `set_adapter(name, inference_mode=True)`. Copying is what the
times published for LoRTA are of: an adapter's tensors from the host to a GPU, nothing else.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lorta.training.metering import synchronise

SWAPS = 20  # timed at each size


@dataclass(frozen=True)
class SwappingCost:
    """Costs with so many adapters beside the model, in seconds; `copy_s` is None without a GPU."""

    adapters: int
    load_s: float  # all of them, from none
    last_load_s: float  # median of the last ten loads, or of all if there are fewer
    swap_s: float  # median of swaps among all that are loaded
    copy_s: float | None  # all of them, one after the other


def clock_of(device: str) -> tuple[str, Callable[[], float]]:
    """Return what is measured and how: the process's own processor time, or with a GPU the elapsed time."""
    return ("processor", time.process_time) if device == "cpu" else ("elapsed", time.perf_counter)


def measure_swapping(
    make_model: Callable[[], PreTrainedModel], config: peft.PeftConfig, sizes: Sequence[int], device: str, folder: Path
) -> tuple[Mapping[str, int], list[SwappingCost]]:
    """Return counts (parameters, adapter_bytes) of one adapter, and the costs at each number of adapters, rising.

    Adapters are copies of one, under other names: what PEFT does depends on their shapes, not on their values. `folder`
    must be empty, and the largest size at least 2.
    """
    trained = peft.get_peft_model(make_model(), config)
    counts = {"parameters": sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)}
    trained.save_pretrained(str(folder / "0"))
    counts["adapter_bytes"] = sum(file.stat().st_size for file in (folder / "0").glob("adapter_model*"))
    for number in range(1, max(sizes)):
        shutil.copytree(folder / "0", folder / str(number))
    first, model = (_at(device, make_model()) for _ in range(2))
    _load(_load(first, folder, 0, device), folder, 1, device)  # imports and the device have started
    loads: list[float] = []
    costs: list[SwappingCost] = []
    _, clock = clock_of(device)
    for number in range(max(sizes)):
        begun = clock()
        model = _load(model, folder, number, device)
        synchronise()
        loads.append(clock() - begun)
        if number + 1 in sizes:
            swap_s, copy_s = _swap(model, number + 1, clock), _copy(folder, number + 1, device, clock)
            costs.append(SwappingCost(number + 1, sum(loads), statistics.median(loads[-10:]), swap_s, copy_s))
    return counts, costs


def _at(device: str, model: Any) -> Any:
    return model.to(device)


def _load(model: Any, folder: Path, number: int, device: str) -> Any:
    place, name = str(folder / str(number)), str(number)
    if number == 0:
        return peft.PeftModel.from_pretrained(model, place, adapter_name=name).eval()
    model.load_adapter(place, adapter_name=name, torch_device=device)
    return model


def _swap(model: Any, adapters: int, clock: Callable[[], float]) -> float:
    """Return the median seconds of a swap; every one goes to another adapter, where there is another."""
    seconds: list[float] = []
    for number in range(SWAPS):
        name = str((number * 7 + adapters // 2) % adapters)
        begun = clock()
        model.set_adapter(name, inference_mode=True)
        synchronise()
        seconds.append(clock() - begun)
    return statistics.median(seconds)


def _copy(folder: Path, adapters: int, device: str, clock: Callable[[], float]) -> float | None:
    """Return the median seconds, of five times, to copy the tensors of all adapters to a GPU, from pageable memory."""
    if device == "cpu":
        return None
    tensors = list(load_file(folder / "0" / "adapter_model.safetensors").values())
    seconds: list[float] = []
    for _ in range(6):
        begun = clock()
        held = [tensor.to(device) for _ in range(adapters) for tensor in tensors]
        synchronise()
        seconds.append(clock() - begun)
        del held
    return statistics.median(seconds[1:])  # the first one starts the device
