"""Peak memory of training on a CPU, where no allocator keeps it: the tensors alive during a step, by torch's profiler.

The process's own peak holds libraries and the loading of weights, and hardly tells one method from another.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

MEASURED_STEP = 1  # the second: the optimizer's state is there by then


class PeakMemory(TrainerCallback):
    """Measures one optimiser step of a process: what stands (weights, optimizer state) and what the step adds at most.

    `peak_bytes` stays None on a GPU, whose allocator knows, and when training ends before the second step.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._standing = 0
        self._steps = itertools.count()
        self._profile: profile | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start recording before the measured step."""
        if next(self._steps) == MEASURED_STEP and not torch.cuda.is_available():
            self._standing = standing_bytes(kwargs["model"], kwargs["optimizer"])
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop recording behind the measured step."""
        if (recorded := self.stop()) is not None:
            self.peak_bytes = self._standing + most_allocated(recorded)

    def stop(self) -> profile | None:
        """Stop recording, if it goes on, and return what was recorded: a step that failed has no end."""
        recorded, self._profile = self._profile, None
        if recorded is not None:
            recorded.__exit__(None, None, None)
        return recorded


def standing_bytes(model: nn.Module, optimizer: Any) -> int:
    """Return the bytes of weights, buffers, gradients and optimizer state, memory that tensors share counted once."""
    weights = list(itertools.chain(model.parameters(), model.buffers()))
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = getattr(optimizer, "optimizer", optimizer).state.values()  # accelerate wraps the optimizer
    return _bytes(itertools.chain(weights, gradients, *(state.values() for state in states)))


def _bytes(values: Iterable[Any]) -> int:
    storages = {
        storage.data_ptr(): storage.nbytes()
        for value in values
        if isinstance(value, Tensor) and value.device.type != "meta"
        for storage in [value.untyped_storage()]
    }
    return sum(storages.values())


def most_allocated(recorded: profile) -> int:
    """Return the most bytes that were allocated at once while a profile was recorded, beyond those before it."""
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]  # pyright: ignore
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, alive)
    return peak
