"""Where worker processes cannot be had, or the server that they are forked from ends, a sweep goes on or says why."""

import errno
import os
from concurrent.futures import Future

import pytest
from rich.console import Console

from lorta.cli.run import run_plan
from lorta.launch import local
from lorta.launch.local import WorkersUnavailable, run_all
from lorta.planning.planner import Plan
from lorta.runner.record_builder import first_record
from tests.faults.sweeps import plan


@pytest.fixture
def specs(tmp_path):
    return plan(tmp_path / "a", "adapter=head_only", "seed=0,1", "runtime.workers=1")


class InThisThread:
    """A pool that answers at once with a record, or is broken from the beginning, as after the end of its server."""

    def __init__(self, broken: bool) -> None:
        self.broken, self.stopped = broken, False

    def __enter__(self) -> "InThisThread":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True

    def schedule(self, function, arguments, timeout):
        if self.broken:
            raise RuntimeError("Unexpected error within the Pool")
        future: Future = Future()
        future.set_result(first_record(arguments[1]))
        return future


def with_pools(monkeypatch, *broken: bool) -> list[InThisThread]:
    pools = [InThisThread(one) for one in broken]
    made = iter(pools)
    monkeypatch.setattr(local, "_make_pool", lambda specs, workers, gpu: next(made))
    monkeypatch.setattr(local, "POLL_S", 0.01)
    return pools


def test_a_sweep_goes_on_with_another_server(specs, monkeypatch):
    """It ended in a traceback of the pool."""
    pools = with_pools(monkeypatch, True, False)
    records = [record for record in run_all(specs, 1) if record is not None]
    assert [record.run_id for record in records] == [spec.run_id for spec in specs]
    assert pools[0].stopped


def test_a_server_that_ends_again_and_again_is_one_sentence(specs, monkeypatch, capsys):
    with_pools(monkeypatch, True, True, True)
    assert run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=True) == 1
    said = capsys.readouterr().out
    assert "stopped: the process that workers are forked from ended 3 times: runtime.workers=0 does the runs" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.EROFS])
def test_a_missing_or_tiny_dev_shm_names_the_way_without_workers(specs, monkeypatch, capsys, number):
    """Locks between processes are files there."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    assert run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=True) == 1
    said = capsys.readouterr().out
    assert f"no worker process can be started ([Errno {number}]" in said
    assert "a writable /dev/shm with some space: runtime.workers=0" in said


def test_too_few_file_descriptors_are_no_matter_of_dev_shm(specs, monkeypatch):
    def refuse(specs, workers, gpu):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(local, "_make_pool", refuse)
    monkeypatch.setattr(local, "SHARED_MEMORY", local.Path("/"))
    with pytest.raises(WorkersUnavailable, match=r"Too many open files\): runtime.workers=0"):
        list(run_all(specs, 1))
