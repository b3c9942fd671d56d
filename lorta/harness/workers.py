"""Local workers: one process a run, forked from a server that has torch, transformers and peft in memory already.

A run that is killed, or takes too long, costs that run only; its record says so. The pool itself is pebble's.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from lorta.harness.record import RunRecord
from lorta.harness.sections import Failure
from lorta.harness.spec import RunSpec
from lorta.harness.store import Store

PRELOAD = ("torch", "transformers", "peft", "datasets", "evaluate", "lorta.harness.training", "lorta.harness.pipeline")
POLL_S = 0.25


def worker_count(specs: Sequence[RunSpec]) -> int:
    """Return how many processes to use: the setting, or one with a GPU, or the cores divided by a run's threads."""
    wanted = specs[0].settings.runtime.workers
    if wanted != "auto":
        return wanted
    if Path("/proc/driver/nvidia/gpus").is_dir():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(spec.settings.trainer.cpu_threads for spec in specs)
    return max(1, min(cores // threads, len(specs)))


def run_all(specs: Sequence[RunSpec], workers: int) -> Iterator[RunRecord | None]:
    """Run specs and yield each record as it is finished, None about four times a second in between.

    With `workers` = 0 the runs are done in this process, one after another.
    """
    _quieten_profiler()
    from lorta.harness.pipeline import execute

    if workers == 0:
        for spec in specs:
            yield execute(spec)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *_target_modules(specs)])
    with ProcessPool(max_workers=workers, max_tasks=1, context=context) as pool:
        timeout = specs[0].settings.runtime.timeout_s
        waiting: dict[Future[RunRecord], RunSpec] = {
            pool.schedule(execute, [spec], timeout=timeout): spec for spec in specs
        }
        try:
            while waiting:
                done, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    yield _record(future, waiting.pop(future))
                yield None
        except BaseException:
            pool.stop()
            raise


def _quieten_profiler() -> None:
    """Before torch comes: its profiler, which measures memory, would announce itself and each block it did not see."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _target_modules(specs: Sequence[RunSpec]) -> list[str]:
    """Return the modules of all classes that the specs name, so that they are imported once, before the fork."""
    nodes: list[Any] = [part for spec in specs for part in (spec.settings.task, spec.settings.adapter)]
    nodes += [spec.settings.adapter.get("config") or {} for spec in specs]
    targets = {str(node["_target_"]).rpartition(".")[0] for node in nodes if "_target_" in node}
    return sorted(targets)


def _record(future: "Future[RunRecord]", spec: RunSpec) -> RunRecord:
    """Return the run's record, writing the one that a killed process could not write."""
    try:
        return future.result()
    except TimeoutError:
        message = f"stopped after runtime.timeout_s={spec.settings.runtime.timeout_s} seconds"
        return _lost(spec, "timeout", Failure(kind="timeout", type="TimeoutError", message=message, phase="unknown"))
    except ProcessExpired as error:
        killed = error.exitcode == -9
        message = f"the process ended with code {error.exitcode}" + (
            ": killed, often by the system when memory runs out" if killed else ""
        )
        failure = Failure(kind="oom" if killed else "infra", type="ProcessExpired", message=message, phase="unknown")
        return _lost(spec, "failed", failure)
    except Exception as error:  # outside execute's own handling: its first record could not be written
        failure = Failure(kind="bug", type=type(error).__name__, message=str(error), phase="unknown")
        return _lost(spec, "failed", failure)


def _lost(spec: RunSpec, status: Any, failure: Failure) -> RunRecord:
    from lorta.harness.describe import first_record, now

    store = Store(spec.settings.runtime.runs)
    record = store.read(spec.signature) or first_record(spec)
    record = replace(record, status=status, failure=failure, ended_at=now())
    store.write(record)
    return record
