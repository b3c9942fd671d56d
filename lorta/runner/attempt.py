"""One attempt at a run: claimed, unless someone else is at it or has been since the sweep began, and limited.

No torch until the claim is there.
"""

from collections.abc import Sequence
from dataclasses import replace

from lorta.planning.spec import RunSpec
from lorta.records.locks import Claim, take
from lorta.records.record import RunRecord
from lorta.records.sections import Failure, Status
from lorta.records.store import Store, StoreUnwritable
from lorta.system.preemption import Preempted, defer_preemption, handle_preemption_signals
from lorta.system.run_log import add_line

ENDED = ("success", "failed", "timeout")  # to completion: another sweep's outcome is taken, not tried again


def attempts_so_far(specs: Sequence[RunSpec]) -> dict[str, int]:
    """Return how many attempts at each run have ended, by signature; one that goes on elsewhere has not."""
    attempts: dict[str, int] = {}
    for spec in specs:
        record = Store(spec.settings.runtime.runs).last(spec.run_id)
        attempts[spec.run_id] = 0 if record is None else record.attempt - (record.status not in ENDED)
    return attempts


def attempt(spec: RunSpec, attempts_before: int, shares_gpu: bool = False) -> RunRecord | None:
    """Run a spec and return its record, another sweep's if it ended since. `shares_gpu`: other runs are on its GPU.

    None while someone else is at it, and when asked to leave before there was anything to keep. Any other error of the
    operating system is this run's failure. Raises StoreUnwritable.
    """
    try:
        with handle_preemption_signals():
            return _claimed(spec, attempts_before, shares_gpu)
    except Preempted as left:
        return _left(spec, attempts_before, left)
    except OSError as error:  # outside of execute's own handling: the run's folder is damaged, or the store is
        return _unrecorded(spec, attempts_before, error)


def _left(spec: RunSpec, attempts_before: int, left: Preempted) -> RunRecord | None:
    """Write that an attempt was asked to leave outside of execute's own handling; None when it had not begun."""
    from lorta.runner.record_builder import now

    store = Store(spec.settings.runtime.runs)
    with defer_preemption():
        record = store.last(spec.run_id)
        if record is None or record.attempt <= attempts_before or record.status != "running":
            return None
        failure = Failure(kind="preempted", type="Preempted", message=str(left), phase="unknown")
        record = replace(record, status="preempted", failure=failure, ended_at=now())
        store.write(record)
        return record


def _unrecorded(spec: RunSpec, attempts_before: int, error: OSError) -> RunRecord | None:
    from lorta.runner.os_errors import infra_message, require_store

    require_store(error, Store(spec.settings.runtime.runs))
    message = infra_message(error, spec.settings.runtime)
    failure = Failure(kind="infra", type=type(error).__name__, message=message, phase="unknown")
    return lost(spec, attempts_before, "failed", failure)


def _claimed(spec: RunSpec, attempts_before: int, shares_gpu: bool) -> RunRecord | None:
    store = Store(spec.settings.runtime.runs)
    claim = take(store.folder(spec.run_id))
    if claim is None:
        return None
    with claim:
        record = store.last(spec.run_id)
        if record is not None and record.attempt > attempts_before and record.status in ENDED:
            return record
        store.tidy(spec.run_id)
        return _execute(spec, claim, shares_gpu)


def _execute(spec: RunSpec, claim: Claim, shares_gpu: bool) -> RunRecord:
    from lorta.runner.execute import execute
    from lorta.runner.tracking import mirrored

    record = execute(spec, still_ours=lambda: not claim.lost(), shares_gpu=shares_gpu)
    settings = spec.settings
    return mirrored(record, Store(settings.runtime.runs), settings.tracking)


def lost(spec: RunSpec, before: int, status: Status, failure: Failure) -> RunRecord | None:
    """Write the record of an attempt whose process is gone; None when another sweep has gone on with it already.

    A run's folder that takes no record costs the record only: it is returned all the same. Raises StoreUnwritable.
    """
    store = Store(spec.settings.runtime.runs)
    try:
        claim = take(store.folder(spec.run_id))
        if claim is None:
            return None
        with claim:
            record = _ended(spec, before, store.last(spec.run_id), status, failure)
            store.write(record)
            add_line(store.folder(spec.run_id), f"{status}: {failure.kind}: {failure.type}: {failure.message}")
            return record
    except StoreUnwritable:
        raise
    except OSError:  # a file in place of the folder, a folder in place of the record
        return _ended(spec, before, None, status, failure)


def _ended(spec: RunSpec, before: int, record: RunRecord | None, status: Status, failure: Failure) -> RunRecord:
    from lorta.runner.record_builder import first_record, now

    if record is None or record.attempt <= before:  # it died before its first record
        record = replace(first_record(spec), attempt=before + 1)
    return replace(record, status=status, failure=failure, ended_at=now())


def skip(spec: RunSpec, sentence: str) -> None:
    """Write the record of a run that is not done because its parts do not go together."""
    from lorta.runner.record_builder import first_record, now

    store = Store(spec.settings.runtime.runs)
    try:
        store.write(replace(first_record(spec), status="skipped", reason=sentence, ended_at=now()))
    except StoreUnwritable:
        raise
    except OSError:  # a damaged folder, which the sweep's end tells of
        return
