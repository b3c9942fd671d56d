"""One run from its spec to its record: tries, restarts with a smaller batch, and failures, which are records, too."""

import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from lorta.config.settings import TrainerSettings
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.sections import Failure, Status
from lorta.records.store import CHECKPOINT, Store, remove, write_atomically
from lorta.runner import record_builder as describe
from lorta.runner.os_errors import infra_message, require_store
from lorta.runner.steps import RunSteps
from lorta.system.preemption import Preempted, defer_preemption
from lorta.system.run_log import RUN, run_log
from lorta.system.slurm_jobs import cancelled
from lorta.training.recovery import (
    CheckpointUnusable,
    batch_section,
    halved,
    held_bytes,
    limited_memory,
    settings_of_checkpoint,
    take_over,
    whole_checkpoint,
)

TRACEBACK = "traceback.txt"


def execute(spec: RunSpec, still_ours: Callable[[], bool] = lambda: True, shares_gpu: bool = False) -> RunRecord:
    """Run a spec and return its record, which is on disk as `running` before the work and final after it.

    When a micro-batch does not fit into memory, the run begins again with half of it, the batch of an optimizer step as
    before; one that shares its GPU with others fails, since it may fit when it has the GPU to itself. The final record
    is not written when the run is no longer `still_ours`. Raises StoreUnwritable.
    """
    store = Store(spec.settings.runtime.runs)
    folder, previous = store.open(spec.run_id)
    record = describe.first_record(spec, attempt=1 + (previous.attempt if previous else 0))
    with run_log(folder):
        RUN.info("attempt %d at run %s: %s", record.attempt, spec.run_id, " ".join(spec.overrides))
        record = _execute(spec, store, RunSteps(spec, folder, record, shares_gpu), still_ours)
        RUN.info(_outcome(record))
        return record


def _execute(spec: RunSpec, store: Store, run: RunSteps, still_ours: Callable[[], bool]) -> RunRecord:
    folder = run.folder
    if spec.continues is not None:
        take_over(store.folder(spec.continues) / CHECKPOINT, folder / CHECKPOINT)
    asked, mebibytes = spec.settings.trainer, spec.settings.runtime.memory_limit_mib
    beside = _memory_at_start() if mebibytes is not None else None
    trainer: TrainerSettings | None = settings_of_checkpoint(asked, whole_checkpoint(folder / CHECKPOINT))
    while trainer is not None:
        run.begin(trainer, batch_section(asked, trainer), limited_memory(mebibytes, beside))
        store.write(run.record)
        trainer = _try(run, store)
    with defer_preemption():  # what is done is kept, whoever asks to leave now
        return _finished(run, store) if still_ours() else run.record


def _outcome(record: RunRecord) -> str:
    """Return the last line of the log: the score, or why there is none."""
    if record.failure is not None:
        failure = record.failure
        return f"{record.status} in {failure.phase}: {failure.kind}: {failure.type}: {failure.message}"
    score, task = record.primary_score, record.task
    return record.status if score is None or task is None else f"{record.status}: {task.metric_primary} {score.value}"


def _finished(run: RunSteps, store: Store) -> RunRecord:
    try:
        with run.watch.phase("save"):
            return _finish(run.spec, store, run)
    except OSError as error:  # in this run's folder
        require_store(error, store)
        return store.finish(_failed(run, error), {})


def _finish(spec: RunSpec, store: Store, run: RunSteps) -> RunRecord:
    """Write the final record; the checkpoint of a run that stops early is kept for the one that goes on from it."""
    record = store.finish(run.record, run.rows, keep_checkpoint=spec.settings.trainer.stop_after is not None)
    if spec.continues is not None and record.status == "success":
        remove(store.folder(spec.continues) / CHECKPOINT)
    return record


def _memory_at_start() -> int:
    """Return the bytes that a process holds with all libraries in memory."""
    for module in ("torch", "transformers", "peft", "datasets", "lorta.training.trainer"):
        import_module(module)
    return held_bytes()


def _try(run: RunSteps, store: Store) -> TrainerSettings | None:
    """Do the steps of a run, whose record is final afterwards, or return the settings to begin again with."""
    try:
        run.do()
        return None
    except KeyboardInterrupt:
        RUN.info("cancelled in %s", run.watch.current)
        store.write(replace(run.record, status="cancelled", ended_at=describe.now()))
        raise
    except Preempted as left:
        run.record = _preempted(run, left)
        return None
    except CheckpointUnusable as error:
        smaller: TrainerSettings | None = run.settings.trainer  # the same again, from the beginning
        reason = {"resumed_from_step": str(error)}
        traceback.clear_frames(error.__traceback__)
    except Exception as error:
        full = describe.out_of_memory(error)
        if not full:
            require_store(error, store)
        # what went well before goes wrong in a second start when memory has not all come back: less may still fit
        again = run.settings.trainer != run.spec.settings.trainer
        may_halve = full and not run.shares_gpu and (again or run.watch.current == "train")
        smaller = halved(run.settings.trainer) if may_halve else None
        if smaller is None:
            run.record = _failed(run, error)
            return None
        size = smaller.per_device_train_batch_size
        reason = {"batch.micro": f"{size} rows at a time, because more did not fit into memory"}
        traceback.clear_frames(error.__traceback__)  # they hold the model and its activations
    run.begin_again(reason)
    return smaller


def _preempted(run: RunSteps, left: Preempted) -> RunRecord:
    status: Status = "preempted"
    message, job = str(left), run.record.slurm_job
    if left.signal == signal.SIGTERM and job is not None and cancelled(job):
        status, message = "cancelled", f"Slurm job {job} was cancelled (scancel): {left}"
    failure = Failure(kind="preempted", type="Preempted", message=message, phase=run.watch.current, step=left.step)
    return describe.ended(run.record, run.data, status, failure)


def _failed(run: RunSteps, error: Exception) -> RunRecord:
    write_atomically(run.folder / TRACEBACK, traceback.format_exc())
    kind = describe.failure_kind(error, run.watch.current)
    said = str(error) or type(error).__name__
    failure = Failure(
        kind=kind,
        type=type(error).__name__,
        message=infra_message(error, run.settings.runtime) if kind == "infra" else said,
        phase=run.watch.current,
        step=getattr(error, "step", None),
        traceback_file=TRACEBACK,
    )
    record = describe.with_counts(run.record, getattr(error, "counts", {}))
    return describe.ended(record, run.data, "failed", failure)
