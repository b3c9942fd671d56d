"""Where runs go: a pool of workers for each GPU, or one for the processor, and how many runs each takes at once."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pebble import ProcessPool

from lorta.config.identity import SEEDS
from lorta.planning.spec import RunSpec
from lorta.records.canonical import canonical_json
from lorta.records.record import RunRecord
from lorta.status.states import RawRecord, glances
from lorta.system.gpus import free_bytes

CONTEXT_BYTES = 600 * 2**20  # of CUDA itself in each process; not in the allocator's peak
USED = 0.9  # of the free memory
MOST = 4  # runs a GPU by `auto`: small models leave it idle between kernels, but nobody has measured more here
FREE_OF_MEMORY = {  # settings that move no peak
    "trainer": (
        *("learning_rate", "head_learning_rate", "weight_decay", "head_weight_decay", "num_train_epochs", "max_steps"),
        *("lr_scheduler_type", "warmup_ratio", "max_grad_norm", "stop_after", "cpu_threads", "selection"),
    ),
    "data": ("max_train_samples", "max_eval_samples", "holdout"),
}


@dataclass
class Lane:
    """A pool of workers that all see one GPU, or that see none."""

    pool: ProcessPool
    room: int  # runs at once
    on_gpu: bool = False
    running: dict[Future[RunRecord | None], RunSpec] = field(default_factory=dict)
    alone: bool = False  # the run at work has the GPU to itself

    @property
    def shared(self) -> bool:
        """Whether runs are beside others on a GPU."""
        return self.on_gpu and self.room > 1

    def takes(self, alone: bool) -> bool:
        """Return whether there is room for another run, or for one that must be alone."""
        return not self.running if alone else not self.alone and len(self.running) < self.room


def spread(workers: int, gpus: Sequence[str]) -> Iterator[tuple[str | None, int]]:
    """Yield a GPU and its number of runs at once, as equal as can be; a single GPU, or none, needs no name."""
    if len(gpus) < 2:
        yield None, workers
        return
    for number, gpu in enumerate(gpus[:workers]):
        yield gpu, workers // len(gpus) + (number < workers % len(gpus))


def runs_per_gpu(specs: Sequence[RunSpec], gpus: tuple[str, ...]) -> int:
    """Return how many runs share a GPU: the setting, or as many as fit by the peaks of earlier runs of the same size.

    One where a run of a new size is among them, or the free memory is not known. Raises ValueError when more are
    asked for than fit.
    """
    runtime = specs[0].settings.runtime
    wanted = runtime.runs_per_gpu
    if wanted == 1 or len(specs) <= len(gpus):
        return 1
    need, free = _largest_peak(specs), free_bytes(gpus)
    if need is None or free is None:
        return 1 if wanted == "auto" else wanted
    fitting = int((USED * free - CONTEXT_BYTES) // (need + CONTEXT_BYTES))  # a process waits for its run, too
    if wanted == "auto":
        return max(1, min(fitting, MOST))
    if wanted > max(1, fitting):
        gibibytes = [f"{bytes_ / 2**30:.1f}" for bytes_ in (need + CONTEXT_BYTES, free)]
        raise ValueError(
            f"runtime.runs_per_gpu={wanted}: runs of this size took {gibibytes[0]} GiB each, and {gibibytes[1]} GiB of "
            f"a GPU are free: at most {max(1, fitting)} fit; give that, or auto"
        )
    return wanted


def _largest_peak(specs: Sequence[RunSpec]) -> int | None:
    """Return the largest peak on a GPU of earlier runs like these, None where one of them was never run on any."""
    peaks: dict[str, int] = {}
    for record in glances(specs[0].folder.parent):
        peak = record.get("memory", "train_peak_reserved_bytes")
        if peak and record.get("status") == "success" and not _made_smaller(record):
            size = _size(record.get("config"))
            peaks[size] = max(peak, peaks.get(size, 0))
    needed = [peaks.get(_size(spec.config)) for spec in specs]
    known = [peak for peak in needed if peak is not None]
    return max(known) if len(known) == len(needed) else None


def _made_smaller(record: RawRecord) -> bool:
    asked = record.get("batch", "micro_requested")
    return asked is not None and asked != record.get("batch", "micro")


def _size(config: Mapping[str, Any]) -> str:
    """Return what a run's memory depends on, as text: its settings but for seeds, rates and lengths of training."""
    kept = {name: value for name, value in config.items() if name not in SEEDS}
    for group, names in FREE_OF_MEMORY.items():
        kept[group] = {name: value for name, value in (kept.get(group) or {}).items() if name not in names}
    return canonical_json(kept)
