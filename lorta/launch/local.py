"""Local workers: processes forked from a server that has torch, transformers and peft in memory already.

A process does one run, or several short ones (`lorta.launch.worker`).

Where there are GPUs, each process imports them itself, while it waits for its run, and sees one GPU only. A run that is
killed, or takes too long, costs that run only; its record says so. The pools themselves are pebble's.
"""

import errno
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from lorta.launch import preload
from lorta.launch.lanes import Lane, runs_per_gpu, spread
from lorta.launch.worker import get_ready, runs_per_process, work
from lorta.planning.spec import RunSpec
from lorta.records.locks import holder, on_this_machine
from lorta.records.record import RunRecord
from lorta.records.sections import Failure
from lorta.records.store import StoreUnwritable
from lorta.runner.attempt import attempt, attempts_so_far, lost
from lorta.runner.record_builder import failure_kind
from lorta.system import allocator
from lorta.system.gpus import gpus_here, one_gpu, visible_gpus
from lorta.system.preemption import defer_preemption, preemption_requested
from lorta.system.process_state import restored

AT_THE_END = ("lorta.reporting.report", "matplotlib.figure")  # of a sweep, in the process that leads it
POLL_S = 0.25
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps the locks between processes
MOST_POOLS = 3  # of one sweep: whatever ends the server that often ends it again
WITHOUT_WORKERS = "runtime.workers=0 does the runs in this process, one after another"


def worker_count(specs: Sequence[RunSpec]) -> int:
    """Return how many runs to do at once: the setting, or `runs_per_gpu` on each GPU, or the cores by a run's threads.

    Raises WorkersUnavailable when more are to share a GPU than fit.
    """
    wanted = specs[0].settings.runtime.workers
    if wanted == 0 and any(spec.settings.runtime.memory_limit_mib is not None for spec in specs):
        return 1  # native code that gets no memory may end its process
    if wanted == 0:
        return 0
    if gpus := visible_gpus():
        return _on_gpus(specs, gpus)
    if wanted != "auto":
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(spec.settings.trainer.cpu_threads for spec in specs)
    return max(1, min(cores // threads, len(specs)))


def _on_gpus(specs: Sequence[RunSpec], gpus: tuple[str, ...]) -> int:
    runtime = specs[0].settings.runtime
    if runtime.workers != "auto" and runtime.runs_per_gpu == "auto":
        return runtime.workers
    try:
        most = len(gpus) * runs_per_gpu(specs, gpus)
    except ValueError as error:
        raise WorkersUnavailable(0, str(error)) from error
    return min(most, len(specs) if runtime.workers == "auto" else runtime.workers)


def run_all(
    specs: Sequence[RunSpec],
    workers: int,
    before: Mapping[str, int] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[RunRecord | None]:
    """Run specs and yield each record as it is finished, None about four times a second in between.

    With `workers` = 0 the runs are done in this process, one after another. Runs that another sweep has begun are left
    to it: its record is yielded, or the run is taken over when its process is gone. When this process is asked to leave
    (`lorta.system.preemption`), runs at work are too, and no more are begun. `before` tells how many attempts at each
    run had ended when it was planned; an outcome since then is taken. `say` is told whom each run waits for. Raises
    StoreUnwritable and WorkersUnavailable.
    """
    waiting = Waiting(say)
    before = attempts_so_far(specs) if before is None else before
    queue = deque(specs)
    if workers == 0:
        yield from _run_here(queue, before, waiting)
        return
    for _ in range(MOST_POOLS):
        with ExitStack() as stack:
            lanes = _lanes(specs, workers, stack)
            stack.enter_context(defer_preemption())
            try:
                yield from _Dispatcher(lanes, before, waiting).run(queue)
                return
            except PoolBroken:
                _stop(lanes)
            except BaseException:
                _stop(lanes)
                raise
    raise WorkersUnavailable(0, f"the process that workers are forked from ended {MOST_POOLS} times: {WITHOUT_WORKERS}")


class WorkersUnavailable(OSError):
    """No worker process can be had here, or not so many; `strerror` is one sentence with the remedy."""

    def __str__(self) -> str:
        return str(self.strerror)


class PoolBroken(Exception):
    """A pool takes no more runs: the server that its workers are forked from is gone. Those at work go on."""


def _lanes(specs: Sequence[RunSpec], workers: int, stack: ExitStack) -> list[Lane]:
    """Return a lane for each GPU that there is work for, or one; `stack` closes their pools."""
    gpus = visible_gpus()
    rooms = list(spread(workers, gpus))
    return [Lane(stack.enter_context(_pool(specs, room, gpu)), room, bool(gpus)) for gpu, room in rooms]


def _stop(lanes: Iterable[Lane]) -> None:
    for lane in lanes:
        lane.pool.stop()


def _pool(specs: Sequence[RunSpec], workers: int, gpu: str | None) -> ProcessPool:
    """Return a pool, as `_make_pool`. Raises WorkersUnavailable where the system refuses what it needs."""
    try:
        return _make_pool(specs, workers, gpu)
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> WorkersUnavailable:
    what = f"no worker process can be started ({error})"
    if not SHARED_MEMORY.is_dir() or error.errno in (errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.EROFS):
        what += ", which takes a writable /dev/shm with some space"
    return WorkersUnavailable(error.errno, f"{what}: {WITHOUT_WORKERS}")


def _make_pool(specs: Sequence[RunSpec], workers: int, gpu: str | None = None) -> ProcessPool:
    """Return a pool whose server has begun to load what the runs will, and whose workers see one GPU if it is named."""
    context = multiprocessing.get_context("forkserver")
    context.RLock()  # the pool makes some when it is given its first run: now nothing has been begun
    wanted = preload.imports(specs)
    if gpus_here():  # bitsandbytes begins with CUDA when it is imported, and CUDA does not survive a fork
        context.set_forkserver_preload(["lorta.launch.server_signals", "lorta.launch.local"])  # no torch
    else:
        _server.begin(specs, wanted, context)
        if len(specs) > 1:
            preload.import_all(AT_THE_END)  # in the time that the server takes
    runs = runs_per_process(specs)
    spare = runs == 1  # a process waits, ready, while others work, so that a run starts as soon as one ends
    processes = min(workers + spare, len(specs))
    ready = [wanted, gpu, runs > 1]
    return ProcessPool(processes, max_tasks=runs, initializer=get_ready, initargs=ready, context=context)


class _Server:
    """The process that workers are forked from. It outlives the pool that it was begun for."""

    def __init__(self) -> None:
        self.lacks: frozenset[str] = frozenset()  # of optional_libraries.ALL

    def begin(self, specs: Sequence[RunSpec], wanted: preload.Imports, context: ForkServerContext) -> None:
        """Begin it, or keep the one that is there, unless that lacks a library that runs now use."""
        if self.lacks & wanted.libraries:
            forkserver._forkserver._stop()  # pyright: ignore[reportAttributeAccessIssue]: of earlier pools, all ended
        self.lacks = wanted.left_out
        os.environ[preload.VARIABLE] = preload.program(specs)
        context.set_forkserver_preload(["lorta.launch.preload_server"])
        with allocator.preferred(specs[0].settings.runtime.allocator):
            forkserver.ensure_running()


_server = _Server()


class Waiting:
    """Says whom runs wait for, once a run and holder."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.said: set[tuple[str, str]] = set()

    def tell(self, specs: Iterable[RunSpec]) -> None:
        """Say who holds these runs, of those that are held."""
        for spec in specs:
            process = holder(spec.folder)
            if process is not None and (spec.run_id, str(process)) not in self.said:
                self.said.add((spec.run_id, str(process)))
                self.say(f"waiting for run {spec.run_id}, which is at work elsewhere: {process}")


def _run_here(queue: deque[RunSpec], before: Mapping[str, int], waiting: Waiting) -> Iterator[RunRecord | None]:
    while queue and not preemption_requested():
        spec = queue.popleft()
        with restored(), one_gpu():
            record = attempt(spec, before[spec.run_id])
        if record is None:
            waiting.tell([spec])
            queue.append(spec)
            time.sleep(POLL_S)
        yield record


class _Dispatcher:
    """Gives runs to the pools' workers, so many at a time, and asks those at work to leave when this process is.

    A run that finds no memory on a GPU that it shares is done again with the GPU to itself: a smaller micro-batch,
    which moves numbers by rounding, must not depend on neighbours.
    """

    def __init__(self, lanes: Sequence[Lane], before: Mapping[str, int], waiting: Waiting) -> None:
        self.lanes, self.before, self.waiting = lanes, dict(before), waiting
        self.alone: set[str] = set()  # runs that share no GPU
        self.told: set[tuple[int, str]] = set()  # processes, each with its run

    @property
    def running(self) -> dict[Future[RunRecord | None], RunSpec]:
        """What is at work, in all lanes."""
        return {future: spec for lane in self.lanes for future, spec in lane.running.items()}

    def run(self, queue: deque[RunSpec]) -> Iterator[RunRecord | None]:
        """Run until the queue is empty, or until those at work have left."""
        while self.running or (queue and not preemption_requested()):
            if preemption_requested():
                self._ask_to_leave()
            else:
                self._start(queue)
            done, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                lane = next(lane for lane in self.lanes if future in lane.running)
                spec, lane.alone = lane.running.pop(future), False
                record = _record(future, spec, self.before[spec.run_id])
                if record is None:  # another sweep's
                    queue.append(spec)
                elif lane.shared and spec.run_id not in self.alone and _lacked_gpu_memory(record):
                    self.alone.add(spec.run_id)
                    self.before[spec.run_id] = record.attempt
                    queue.appendleft(spec)
                else:
                    yield record
            if not self.running and queue:
                self.waiting.tell(queue)
                time.sleep(POLL_S)  # all that is left is held elsewhere
            yield None

    def _start(self, queue: deque[RunSpec]) -> None:
        """Start runs that nobody holds while workers are free; a look at each run of the queue at most."""
        for _ in range(len(queue)):
            alone = queue[0].run_id in self.alone
            free = [lane for lane in self.lanes if lane.takes(alone)]
            if not free:
                return
            spec = queue.popleft()
            if holder(spec.folder) is not None:
                queue.append(spec)
                continue
            lane = min(free, key=lambda lane: len(lane.running))
            given = [attempt, spec, self.before[spec.run_id], lane.shared and not alone]
            timeout = spec.settings.runtime.timeout_s
            try:
                future = lane.pool.schedule(work, given, timeout=timeout)
            except OSError as error:
                raise _unavailable(error) from error
            except RuntimeError as error:  # pebble's, of a pool whose threads have ended
                queue.extendleft([spec, *self.running.values()])
                raise PoolBroken from error
            lane.running[future], lane.alone = spec, alone

    def _ask_to_leave(self) -> None:
        for spec in self.running.values():
            owner = holder(spec.folder)
            if owner is not None and on_this_machine(owner) and (owner.pid, spec.run_id) not in self.told:
                self.told.add((owner.pid, spec.run_id))
                os.kill(owner.pid, signal.SIGUSR1)


def _record(future: "Future[RunRecord | None]", spec: RunSpec, before: int) -> RunRecord | None:
    """Return the run's record, writing the one that a killed process could not write. Raises StoreUnwritable."""
    try:
        return future.result()
    except StoreUnwritable:
        raise
    except TimeoutError:
        message = f"stopped after runtime.timeout_s={spec.settings.runtime.timeout_s} seconds"
        failure = Failure(kind="timeout", type="TimeoutError", message=message, phase="unknown")
        return lost(spec, before, "timeout", failure)
    except ProcessExpired as error:
        return lost(spec, before, "failed", _expired(error, spec.settings.runtime.memory_limit_mib))
    except Exception as error:  # outside execute's own handling: its first record could not be written
        kind = failure_kind(error, "unknown")
        failure = Failure(kind=kind, type=type(error).__name__, message=str(error), phase="unknown")
        return lost(spec, before, "failed", failure)


def _lacked_gpu_memory(record: RunRecord) -> bool:
    """Return whether a run itself says that its GPU was full; a process that was killed may have had other reasons."""
    failure = record.failure
    return failure is not None and failure.kind == "oom" and failure.type != ProcessExpired.__name__


def _expired(error: ProcessExpired, memory_limit_mib: int | None) -> Failure:
    """Return why a process is gone: native code that gets no memory ends it in various ways."""
    killed, message = error.exitcode == -9, f"the process ended with code {error.exitcode}"
    if killed:
        message += ": killed, often by the system when memory runs out"
    elif memory_limit_mib is not None:
        message += f" under runtime.memory_limit_mib={memory_limit_mib}: give it more"
    full = killed or memory_limit_mib is not None
    return Failure(kind="oom" if full else "infra", type="ProcessExpired", message=message, phase="unknown")
