"""What a worker process does: one run, or several short ones one after another, until one of them goes wrong.

A quarter of a short run's time goes into what a process does once: the first use of kernels, of the profiler, of pages.
A later run finds the process as the first one did, and its peak of memory is its own. Only `runtime.runs_per_process`
asks for several; with `own_process: true` of an adapter, or a limit to memory, each run has a process of its own all
the same (docs/adr/13).
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lorta.config.places import own_folders
from lorta.launch import preload
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.system.gpus import VARIABLE, gpus_here
from lorta.system.parent_watchdog import leave_with_parent
from lorta.system.preemption import SIGNALS
from lorta.system.process_state import forget_peak, restored
from lorta.training.metering import release_memory

MOST = 50  # runs of a process by `auto`: what they could leave behind cannot grow for long
SHORT = 100  # optimizer steps; beside longer runs, a process for each costs little

Record = TypeVar("Record", bound=RunRecord | None)


def runs_per_process(specs: Sequence[RunSpec]) -> int:
    """Return how many of these runs a process does at most: the setting, or several where all are short.

    One by `auto` on a GPU, elsewhere than on Linux, and with methods or tasks of folders of your own, of whose code
    nobody has tested what it leaves behind.
    """
    runtime = specs[0].settings.runtime
    if runtime.memory_limit_mib is not None or any(getattr(spec.adapter, "own_process", False) for spec in specs):
        return 1
    if runtime.runs_per_process != "auto":
        return runtime.runs_per_process
    if gpus_here() or sys.platform != "linux" or own_folders():
        return 1
    return MOST if all(0 < spec.settings.trainer.max_steps <= SHORT for spec in specs) else 1


class _Process:
    """This worker."""

    runs = 0  # done
    spent = False  # a run went wrong: what it left is not known


def get_ready(wanted: preload.Imports, gpu: str | None, several: bool) -> None:
    """Import what runs need, in a process that sees one GPU if it is named, and that may do several runs."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # the server ignores them
    if gpu is not None:  # CUDA looks at it once, when it starts: bitsandbytes starts it with its import
        os.environ[VARIABLE] = gpu
    leave_with_parent()
    if several:
        _end_when_spent()
    preload.prepare(wanted)


def _end_when_spent() -> None:
    """Let this worker of pebble's end, as after the last of its runs, when it is spent."""
    from pebble.pool import process

    fetch_task = process.fetch_task

    def fetch_task_unless_spent(channel: Any) -> Any:
        if _Process.spent:
            raise EOFError  # which ends a worker without complaint
        return fetch_task(channel)

    process.fetch_task = fetch_task_unless_spent


def work(attempt: Callable[[RunSpec, int, bool], Record], spec: RunSpec, before: int, shares_gpu: bool) -> Record:
    """Make an attempt at a run in this process, which is spent unless the run succeeds or is somebody else's."""
    _Process.spent = True
    if _Process.runs:
        _forget_runs()
    with restored():
        record = attempt(spec, before, shares_gpu)
    _Process.runs += 1
    _Process.spent = record is not None and record.status != "success"
    return record


def _forget_runs() -> None:
    """Collect what earlier runs left; what stays is not searched for garbage again."""
    release_memory()
    gc.freeze()
    forget_peak()
