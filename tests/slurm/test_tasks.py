"""What a task of an array does when it is asked to leave; a script stands in for Slurm's command."""

import os
import signal
from pathlib import Path

import pytest

from lorta.launch import slurm
from lorta.records.store import Store
from lorta.system.preemption import EXIT_STATUS
from lorta.system.slurm_jobs import JOB_NAME, Job, read_job, write_job
from tests.faults.sweeps import plan
from tests.faults.test_recovery import with_fault

NOTED = Job("12_3", "head_only", "2026-01-01T00:00:00Z", "log")
TIME_IS_UP, TIME_IS_LEFT = 0.0, 1e9  # seconds after which the signal means the time limit


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """The words of all calls of scontrol by task 3 of array 12; a file `state` is its answer, `fails` a refusal."""
    calls = tmp_path / "calls"
    script = tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncat {tmp_path}/state 2>&1\ntest ! -e {tmp_path}/fails\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    return lambda: [call for call in calls.read_text().splitlines() if "show" not in call] if calls.exists() else []


def noted(folder: Path, fault: str):
    """A run of a faulty adapter that is in the queue."""
    (sound,) = plan(folder, "adapter=head_only")
    spec = with_fault(sound, fault)
    write_job(spec.folder, NOTED)
    return spec


def last(spec):
    return Store(spec.settings.runtime.runs).last(spec.signature)


def test_a_task_that_got_further_goes_back_into_the_queue_and_ends(tmp_path, scontrol):
    spec = noted(tmp_path / "a", "AsksToLeave")
    assert slurm.run_in_job(spec, 0, TIME_IS_UP) == "requeued"
    left = last(spec)
    assert (left.status, left.slurm_job, left.failure.step) == ("preempted", "12_3", 7)
    assert read_job(spec.folder).submitted_at >= left.ended_at
    assert slurm.run_in_job(spec, 0, TIME_IS_UP) == "success"
    assert last(spec).resumed_from_step == 7
    assert scontrol() == ["requeue 12_3"]
    assert not (spec.folder / JOB_NAME).exists()


def test_a_time_limit_too_short_for_a_checkpoint_is_a_failure_with_the_remedy(tmp_path, scontrol):
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    with pytest.raises(SystemExit):
        slurm.run_in_job(spec, 0, TIME_IS_UP)
    assert (last(spec).status, last(spec).failure.kind) == ("timeout", "timeout")
    assert "raise hydra.launcher.timeout_min" in last(spec).failure.message
    assert scontrol() == []


def test_a_task_preempted_before_its_first_step_starts_again(tmp_path, scontrol):
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "requeued"
    assert scontrol() == ["requeue 12_3"]


def test_a_signal_from_before_the_task_listened_is_not_lost(tmp_path, scontrol):
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)  # waits for this thread; others of the test's process would take it
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "requeued"
    assert last(spec) is None


@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING"])
def test_a_preemption_by_sigterm_is_not_taken_for_a_cancellation(tmp_path, scontrol, monkeypatch, state):
    (tmp_path / "state").write_text(f"JobState={state} Reason=None\n")
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    monkeypatch.setattr(slurm, "run_all", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "requeued"


def test_where_requeuing_is_forbidden_the_same_command_goes_on(tmp_path, scontrol):
    (tmp_path / "fails").touch()
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    with pytest.raises(SystemExit) as left:
        slurm.run_in_job(spec, 0, TIME_IS_LEFT)
    assert left.value.code == EXIT_STATUS
    assert (last(spec).status, read_job(spec.folder)) == ("preempted", NOTED)


def test_a_task_cancelled_before_it_began_says_so(tmp_path, scontrol, monkeypatch):
    (tmp_path / "state").write_text("JobState=COMPLETING Reason=None\n")
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    monkeypatch.setattr(slurm, "run_all", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        slurm.run_in_job(spec, 0, TIME_IS_LEFT)
    assert last(spec).status == "cancelled"
    assert last(spec).failure.message.startswith("Slurm job 12_3 was cancelled")


def test_an_error_of_the_system_is_the_runs_record(tmp_path, scontrol):
    """On a cluster it was never recorded."""
    spec = noted(tmp_path / "a", "MeetsOSError")
    with pytest.raises(SystemExit) as left:
        slurm.run_in_job(spec, 0, TIME_IS_LEFT)
    assert left.value.code == 1
    assert (last(spec).status, last(spec).failure.kind, last(spec).slurm_job) == ("failed", "infra", "12_3")
    (spec.folder / "record.json").unlink()
    (spec.folder / "record.json").mkdir()  # one that execute itself cannot write
    with pytest.raises(SystemExit):
        slurm.run_in_job(spec, 0, TIME_IS_LEFT)


def test_a_task_takes_the_outcome_of_another_sweep(tmp_path, scontrol):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "success"
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "success"
    assert last(spec).attempt == 1


def test_a_task_that_somebody_requeued_is_not_cancelled(tmp_path, scontrol, monkeypatch):
    """`scontrol requeue` sends SIGTERM, as scancel does; the count of restarts tells them apart."""
    (tmp_path / "state").write_text("JobState=COMPLETING Reason=None\n Requeue=1 Restarts=1 BatchFlag=1\n")
    spec = noted(tmp_path / "a", "AsksBeforeTraining")
    monkeypatch.setattr(slurm, "run_all", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert slurm.run_in_job(spec, 0, TIME_IS_LEFT) == "requeued"
    assert "requeue 12_3" not in scontrol()  # it is in the queue already
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # this is that restart, and now it is cancelled
    with pytest.raises(SystemExit):
        slurm.run_in_job(spec, 0, TIME_IS_LEFT)
    assert last(spec).status == "cancelled"
