"""An error of the operating system inside a run is that run's record, with the path that failed; the others go on."""

import errno
import os

import pytest
from rich.console import Console

from lorta.cli.run import run_plan
from lorta.launch.local import run_all
from lorta.planning.planner import Plan
from lorta.records.record import RunRecord
from lorta.records.store import Store, StoreUnwritable
from lorta.runner import os_errors
from lorta.runner.os_errors import infra_message, require_store
from lorta.runner.record_builder import failure_kind
from tests.faults.sweeps import plan, with_fault


@pytest.fixture
def specs(tmp_path):
    return plan(tmp_path / "a", "adapter=head_only", "seed=0,1", "runtime.workers=0")


def finished(*specs) -> list[RunRecord]:
    return [record for record in run_all(specs, 0) if record is not None]


def meets(spec, *error):
    found = with_fault(spec, "MeetsOSError")
    found.adapter.__dict__["error"] = error
    return found


@pytest.mark.parametrize(
    "error", [(errno.EIO,), (errno.ENOSPC, "{cache}/rows"), (errno.EACCES, "{cache}/rows"), (errno.EROFS, "{cache}/x")]
)
def test_an_error_inside_a_run_is_its_record(specs, error):
    cache = specs[0].settings.runtime.cache
    number, *path = error
    named = [part.format(cache=cache) for part in path]
    (record,) = finished(meets(specs[0], number, *named))
    assert (record.status, record.failure.kind, record.failure.phase) == ("failed", "infra", "setup")
    assert os.strerror(number) in record.failure.message
    for part in named:
        assert part in record.failure.message
        assert f" in runtime.cache={cache}: " in record.failure.message
    assert Store(specs[0].settings.runtime.runs).read(record.run_id) == record


def test_a_folder_in_place_of_the_predictions_is_named(specs):
    spec = specs[0]
    (spec.folder / "predictions.jsonl").mkdir(parents=True)
    (record,) = finished(spec)
    assert (record.failure.kind, record.failure.phase) == ("infra", "save")
    assert str(spec.folder / "predictions.jsonl") in record.failure.message


@pytest.mark.parametrize("damage", ["a file for the folder", "a folder for the record", "too deep"])
def test_a_damaged_run_folder_costs_that_run_only(specs, damage, capsys):
    damaged, sound = specs
    folder = damaged.folder
    if damage == "a file for the folder":
        folder.parent.mkdir(parents=True)
        folder.write_text("")
    elif damage == "a folder for the record":
        (folder / "record.json").mkdir(parents=True)
    else:
        folder.mkdir(parents=True)
        (folder / "record.json").write_bytes(b"[" * 200_000)
    status = run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=False)
    said = capsys.readouterr().out
    assert Store(sound.settings.runtime.runs).finished(sound.run_id)
    if damage == "too deep":  # done again, over what nobody can read
        assert status == 0
    else:
        assert status == 1
        assert f"left out: {folder}" in said


def test_a_store_deleted_under_a_sweep_is_no_success(specs, monkeypatch, capsys):
    monkeypatch.setattr("lorta.cli.run._run", lambda *_: 0)
    assert run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=False) == 1
    said = capsys.readouterr().out
    assert f"2 of 2 runs have no record in {specs[0].settings.runtime.runs}" in said


def test_a_write_without_a_path_blames_the_folder_that_is_full(specs, monkeypatch):
    runtime = replace_cache(specs[0], monkeypatch)
    said = infra_message(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), runtime)
    assert f" in runtime.cache={runtime.cache}: free some space there" in said


def replace_cache(spec, monkeypatch):
    """The run's folders, of which the cache takes nothing."""
    runtime = spec.settings.runtime

    def refuse(folder) -> None:
        if str(folder) == str(runtime.cache):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os_errors, "try_writing", refuse)
    return runtime


def test_the_store_is_blamed_when_it_takes_nothing(specs, monkeypatch):
    def refuse(folder) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os_errors, "try_writing", refuse)
    with pytest.raises(StoreUnwritable, match=r"cannot write .*/runs"):
        finished(meets(specs[0], errno.ENOSPC))


def test_a_library_error_made_from_one_of_the_system_is_one():
    error = ValueError("cannot prepare the rows")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/rows")
    assert failure_kind(error, "data") == "infra"
    assert failure_kind(RuntimeError("I/O error: No space left on device (os error 28)"), "save") == "infra"
    assert failure_kind(ValueError("cannot prepare the rows"), "data") == "data"


def test_an_error_of_a_run_is_not_the_stores(tmp_path):
    require_store(OSError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere"), Store(tmp_path / "runs"))
    require_store(OSError(errno.EIO, os.strerror(errno.EIO)), Store(tmp_path / "runs"))
    assert list((tmp_path / "runs").iterdir()) == []
