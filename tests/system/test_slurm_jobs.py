"""What a status says of runs in a cluster's queue, with a squeue that answers, and without one."""

import pytest

from lorta.cli.main import main
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.system.slurm_jobs import Job, Queue, write_job
from tests.cli.test_sweep import record_of

BEFORE, SUBMITTED, AFTER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"
JOB = Job("12_3", "lora r=2 glue/cola seed 0", SUBMITTED, "12_3.log")


@pytest.mark.parametrize(
    ("squeue", "started_at", "said"),
    [
        ({"12_3": "PENDING (Priority)"}, None, "Slurm job 12_3: PENDING (Priority)"),
        ({"12_3": "RUNNING"}, BEFORE, "Slurm job 12_3: RUNNING"),
        ({"12_3": "RUNNING"}, AFTER, None),  # its record tells
        ({"12_3": "PENDING (BeginTime)"}, AFTER, "Slurm job 12_3: PENDING (BeginTime)"),  # requeued by Slurm itself
        ({"12_3": "COMPLETING"}, None, None),
        ({"12_4": "PENDING"}, None, None),
        (None, BEFORE, f"Slurm job 12_3, submitted at {SUBMITTED}; no squeue answers here"),
        (None, AFTER, None),
    ],
)
def test_a_run_waits_as_long_as_its_job_does(squeue, started_at, said):
    queue = Queue()
    vars(queue)["states"] = squeue
    assert queue.waiting(JOB, started_at) == said


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Overrides and specs of a sweep of three runs: one waits, one has lost its job, one has failed and waits again."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf "12_0|PENDING|Priority\\n12_2|PENDING|None\\n"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    words = ["adapter=lora", "rank=2,4,8", "task=glue/cola", f"runtime.runs={tmp_path}/runs"]
    specs = make_plan(words, True, CONF).specs
    for number, spec in enumerate(specs):
        write_job(spec.folder, Job(f"12_{number}", f"run {number}", SUBMITTED, f"12_{number}.log"))
    Store(tmp_path / "runs").write(record_of(specs[2], "failed"))
    return words, specs


def test_a_status_tells_what_waits_and_whose_job_is_gone(sweep, capsys):
    words, specs = sweep
    assert main(["status", "-m", *words]) == 0
    said = capsys.readouterr().out
    assert "3 runs: 0 done, 2 pending, 1 missing" in said
    assert f"pending     {specs[0].signature}  lora r=2 glue/cola seed 0: Slurm job 12_0: PENDING (Priority)" in said
    assert "Slurm job 12_1 is gone and left no record; its log: 12_1.log" in said
    assert "Slurm job 12_2: PENDING\n" in said


def test_a_store_tells_what_waits_without_a_record(sweep, capsys, tmp_path):
    assert main(["status", "--runs", f"{tmp_path}/runs"]) == 0
    said = capsys.readouterr().out
    assert "3 runs: 0 done, 2 pending, 1 missing" in said
    assert "run 0: Slurm job 12_0: PENDING (Priority)" in said


def test_without_slurm_submitting_is_refused_with_a_sentence(tmp_path, monkeypatch, capsys):
    from lorta.cli.run import main as run

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(["hydra/launcher=slurm"]) == 2
    assert "hydra/launcher=slurm: there is no sbatch" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []
