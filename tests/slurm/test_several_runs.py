"""A task of an array that does several runs; a script stands in for Slurm's command."""

import pytest

from lorta.launch import slurm
from lorta.records.record import RunRecord
from tests.faults.sweeps import plan
from tests.slurm.test_tasks import TIME_IS_LEFT, TIME_IS_UP, last, noted, scontrol

__all__ = ["scontrol"]  # a fixture


def ended(spec) -> RunRecord:
    record = last(spec)
    assert record is not None
    return record


def test_a_task_of_several_runs_goes_on_where_it_was(tmp_path, scontrol):
    first = noted(tmp_path / "a", "AsksToLeave")
    (second,) = plan(tmp_path / "a", "adapter=head_only", "seed=1")
    assert slurm.run_task([first, second], [0, 0], TIME_IS_UP) == "requeued"
    assert (ended(first).status, last(second)) == ("preempted", None)
    assert slurm.run_task([first, second], [0, 0], TIME_IS_UP) == "success"
    assert (ended(first).resumed_from_step, ended(second).status) == (7, "success")
    assert slurm.run_task([first, second], [0, 0], TIME_IS_UP) == "success"
    assert (ended(first).attempt, ended(second).attempt) == (2, 1)
    assert scontrol() == ["requeue 12_3"]


@pytest.mark.parametrize(("on_gpu", "done", "again"), [(False, ["0", "1"], []), (True, ["0"], ["requeue 12_3"])])
def test_a_failed_run_stops_no_other_of_its_task(tmp_path, scontrol, monkeypatch, on_gpu, done, again):
    """On a GPU they go on in a process whose CUDA is sound."""
    specs, begun = plan(tmp_path / "a", "adapter=head_only", "seed=0,1"), []

    def fail(spec, *_):
        begun.append(str(spec.settings.seed))
        raise SystemExit(1)

    monkeypatch.setattr(slurm, "run_in_job", fail)
    monkeypatch.setattr(slurm, "_cuda_started", lambda: on_gpu)
    for spec in specs:
        spec.folder.mkdir(parents=True)
    if on_gpu:
        assert slurm.run_task(specs, [0, 0], TIME_IS_LEFT) == "requeued"
    else:
        with pytest.raises(SystemExit):
            slurm.run_task(specs, [0, 0], TIME_IS_LEFT)
    assert (begun, scontrol()) == (done, again)
