"""Whatever a run does, it leaves a record with the class of its failure, and the other runs go on."""

import pytest

from lorta.config.places import CONF
from lorta.launch.local import run_all
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.file_modes import usual_mode
from lorta.records.store import Store
from tests.faults.sweeps import with_fault

SETTINGS = ["adapter=head_only", "task=glue/cola", "trainer=smoke"]


@pytest.fixture
def spec(tmp_path):
    """A function that plans a run of one of the faulty adapters, or of the sound one for None."""

    def make(fault: str | None, *overrides: str) -> RunSpec:
        folders = [f"runtime.runs={tmp_path}/runs", f"runtime.cache={tmp_path}/cache"]
        (found,) = make_plan([*SETTINGS, *folders, *overrides], False, CONF).specs
        if fault is None:
            return found
        return with_fault(found, fault)

    return make


def finished(specs: list[RunSpec], workers: int) -> dict[str, object]:
    return {record.run_id: record for record in run_all(specs, workers) if record is not None}


@pytest.mark.parametrize(
    ("fault", "kind", "phase"),
    [("OutOfMemory", "oom", "setup"), ("NotANumber", "nan", "train"), ("Broken", "bug", "setup")],
)
def test_an_exception_is_a_record_with_its_class(spec, fault, kind, phase):
    run = spec(fault)
    (record,) = finished([run], workers=0).values()
    stored = Store(run.settings.runtime.runs).read(run.signature)
    assert stored == record
    assert (stored.status, stored.failure.kind, stored.failure.phase) == ("failed", kind, phase)
    assert "Traceback" in (run.folder / stored.failure.traceback_file).read_text()
    log = (run.folder / "log.txt").read_text().splitlines()
    assert " attempt 1 at run " in log[0] and f" failed in {phase}: {kind}: " in log[-1]


def test_a_killed_worker_costs_one_run(spec):
    killed, sound = spec("Killed"), spec(None, "seed=1")
    records = finished([killed, sound], workers=1)
    assert records[killed.signature].status == "failed"
    assert records[killed.signature].failure.kind == "oom"
    assert "-9" in records[killed.signature].failure.message
    assert (killed.folder / "log.txt").read_text().endswith(f"{records[killed.signature].failure.message}\n")
    assert records[sound.signature].status == "success"


def test_a_run_that_takes_too_long_is_stopped(spec):
    slow = spec("Slow", "runtime.timeout_s=4")
    (record,) = finished([slow], workers=1).values()
    assert (record.status, record.failure.kind) == ("timeout", "timeout")


def test_a_failed_run_is_tried_again_and_a_finished_one_is_not(spec):
    store = Store(spec(None).settings.runtime.runs)
    finished([spec("Broken"), spec(None)], workers=0)
    assert not store.finished(spec("Broken").signature)
    assert store.finished(spec(None).signature)
    modes = {path.stat().st_mode & 0o777 for path in spec(None).folder.rglob("*") if path.is_file()}
    assert modes == {usual_mode()}  # the saved adapter was readable to its owner alone


def test_a_record_says_running_before_the_work_starts(spec):
    killed = spec("Killed")
    seen, ended = [], False
    for record in run_all([killed], workers=1):
        ended = ended or record is not None  # a quick end may come before the first look
        if not ended and (found := Store(killed.settings.runtime.runs).read(killed.signature)):
            seen.append(found.status)
    assert seen == [] or seen[0] == "running"
    assert Store(killed.settings.runtime.runs).read(killed.signature).started_at is not None
