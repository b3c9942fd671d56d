"""The cost of one training step, compared in one process: interleaved, paired, in medians; and its peak memory.

Machines are noisy and share their cores, so seconds are taken in rounds that time every candidate once, in an order
that turns from round to round; a ratio is the median of the ratios within rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from lorta.training.cpu_memory import most_allocated
from lorta.training.metering import synchronise

Step = Callable[[], None]


@dataclass(frozen=True)
class StepCost:
    """Seconds of every round, and the most bytes that a step holds beyond what it found."""

    seconds: Sequence[float]
    peak_bytes: int

    @property
    def median_s(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    def ratio(self, other: "StepCost") -> float:
        """Median over rounds of these seconds divided by the other's."""
        return statistics.median(mine / its for mine, its in zip(self.seconds, other.seconds, strict=True))


def measure_steps(
    steps: Mapping[str, Step], rounds: int, warmup: int = 2, clock: Callable[[], float] = time.perf_counter
) -> dict[str, StepCost]:
    """Time every step `rounds` times after `warmup` calls, and measure its peak memory once.

    With one thread, `time.process_time` leaves out what other processes of a busy machine take.
    """
    for step in steps.values():
        for _ in range(warmup):
            step()
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for round_number in range(rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_seconds(steps[name], clock))
    return {name: StepCost(seconds[name], peaks[name]) for name in names}


def _seconds(step: Step, clock: Callable[[], float]) -> float:
    synchronise()
    begun = clock()
    step()
    synchronise()
    return clock() - begun


def peak_bytes(step: Step) -> int:
    """Return the most bytes of tensors alive at once during a step, beyond those alive before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        synchronise()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    return most_allocated(recorded)
