"""What a job's script does before Python starts."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lorta.config.launcher import SlurmSettings
from lorta.config.places import CONF
from lorta.launch import slurm
from lorta.planning.planner import make_plan
from lorta.system.slurm_jobs import read_job


@pytest.mark.parametrize(
    ("checkout", "lines"),
    [
        (Path("/a folder"), ["export PYTHONPATH='/a folder'${PYTHONPATH:+:$PYTHONPATH}", "module load x"]),
        (None, ["module load x"]),  # installed: its folder, first on the path, would hide Python's own modules
    ],
)
def test_a_job_finds_a_checkout_and_leaves_the_path_of_an_installed_lorta_alone(checkout, lines, monkeypatch):
    monkeypatch.setattr(slurm, "CHECKOUT", checkout)
    plan = make_plan(["hydra/launcher=slurm", "hydra.launcher.setup=[module load x]", "task=glue/rte"], False, CONF)
    assert isinstance(plan.launcher, SlurmSettings)
    assert slurm._parameters(plan.specs, plan.launcher)["setup"] == lines


def test_nothing_is_submitted_into_a_store_that_takes_nothing(tmp_path, monkeypatch, capsys):
    """sbatch's script could not be written: a traceback; or the job ran and no run's folder knew of it."""
    words = ["hydra/launcher=slurm", "task=glue/rte", f"runtime.runs={tmp_path / 'runs'}"]
    plan = make_plan(words, False, CONF)

    def refuse(folder: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(slurm, "try_writing", refuse)
    monkeypatch.setattr(slurm, "_unavailable", lambda: None)
    assert plan.launcher is not None
    assert slurm.submit_plan(plan, plan.launcher, Console(soft_wrap=True)) == 2
    said = capsys.readouterr().out
    assert f"nothing was submitted: cannot write {tmp_path / 'runs'}" in said
    assert "(Read-only file system): make it writable" in said


def test_several_short_runs_share_a_task(tmp_path, monkeypatch):
    class Array:
        def __init__(self, folder: Path, python: str) -> None:
            self.folder = folder

        def update_parameters(self, **_: object) -> None:
            pass

        def map_array(self, function, *columns):
            assert function is slurm.run_task
            tasks.extend(zip(*columns, strict=True))
            paths = SimpleNamespace(stdout=self.folder / "log")
            return [SimpleNamespace(job_id=f"12_{number}", paths=paths) for number in range(len(tasks))]

    tasks: list = []
    monkeypatch.setattr("submitit.SlurmExecutor", Array)
    words = ["hydra/launcher=slurm", "hydra.launcher.runs_per_task=2", f"runtime.runs={tmp_path}", "seed=0,1,2"]
    plan = make_plan([*words, "task=glue/rte"], True, CONF)
    assert plan.launcher is not None
    assert slurm.submit(plan.specs, plan.launcher) == "12"
    assert [(len(specs), attempts) for specs, attempts, _ in tasks] == [(2, [0, 0]), (1, [0])]
    jobs = [read_job(spec.folder) for spec in plan.specs]
    assert [job and job.job_id for job in jobs] == ["12_0", "12_0", "12_1"]
    assert "raise hydra.launcher.runs_per_task" in slurm._with_remedy("sbatch: Invalid job array specification", 9)
