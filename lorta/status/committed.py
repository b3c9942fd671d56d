"""Which runs of a plan are committed in a suite of the same name, and not in the store. No torch."""

from pathlib import Path

from lorta.config.identity import VERSION, run_id
from lorta.config.instantiate import trusting
from lorta.config.places import RESULTS
from lorta.planning.lr_search import has_ended_for_search
from lorta.planning.planner import Plan
from lorta.records.record import RunRecord
from lorta.records.store import Store, read_export

RECORDS = RESULTS / "records"


def committed_sentence(plan: Plan) -> str | None:
    """Return how to take the committed runs that the plan would run again, None where there are none.

    Nothing is taken without being asked for: docs/adr/11-restore-is-asked-for.md. A file that cannot be read has no
    runs to offer; `lorta restore` says why.
    """
    runtime = plan.runs[0].settings.runtime
    files = [file for ending in (".jsonl.gz", ".jsonl") if (file := RECORDS / f"{runtime.name}{ending}").is_file()]
    if not files or runtime.force:
        return None
    store = Store(runtime.runs)
    able = [spec for spec in plan.runs if spec.run_id not in plan.unsupported]
    missing = {spec.signature for spec in able if not has_ended_for_search(store.last(spec.run_id))}
    count = len(missing & _finished(files[0])) if missing else 0
    if not count:
        return None
    file = _shortest(files[0])
    command = f"lorta restore {file}{_store(runtime.runs)}"
    return (
        f"{count} of the runs to do {'are' if count > 1 else 'is'} committed in {file}; to take them instead: {command}"
    )


def _finished(file: Path) -> set[str]:
    """Return today's ids of the runs that a suite has finished."""
    try:
        records = read_export(file)
    except (ValueError, OSError):
        return set()
    with trusting():
        return {_name(record) for record in records if _counts(record)}


def _name(record: RunRecord) -> str:
    return record.run_id if record.identity_version == VERSION else run_id(record.config)


def _counts(record: RunRecord) -> bool:
    return record.status == "success" or (record.is_trial and has_ended_for_search(record))


def _shortest(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _store(runs: str) -> str:
    return "" if runs == "runs" else f" --runs {runs}"
