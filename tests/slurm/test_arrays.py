"""A sweep as a Slurm array, on a real Slurm: runs end, go on after a signal, and are cancelled one by one."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorta.config.places import CONF
from lorta.launch.local import run_all
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.store import PROGRESS_NAME, Store

ROOT = Path(__file__).parents[2]
SUBMIT = """import sys
from lorta.cli.run import main
status = main(sys.argv[1:])
print("torch was imported" if "torch" in sys.modules else "without torch")
raise SystemExit(status)
"""
SMALL = ["adapter=head_only", "task=glue/cola", "trainer=smoke", "data.max_eval_samples=32"]
THREE = [*SMALL, "seed=0,1,2", "data.max_train_samples=64"]
TWO = [*SMALL, "seed=8,9", "trainer.max_steps=600", "runtime.checkpoint_s=null"]
PATIENCE_S = 400.0  # for a busy machine


class Cluster:
    """Commands in a folder of their own that meet the cluster."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder = environment | {"PYTHONPATH": str(ROOT)}, folder

    def call(self, *words: str, status: int = 0) -> str:
        """Return what a command prints, which ends with a status."""
        done = subprocess.run(words, capture_output=True, text=True, cwd=self.folder, env=self.environment)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def submit(self, words: list[str], *launcher: str, status: int = 0) -> str:
        own = ("hydra/launcher=slurm", "hydra.launcher.timeout_min=30", *launcher)
        return self.call(sys.executable, "-c", SUBMIT, "-m", *words, *own, status=status)

    def status(self, words: list[str]) -> str:
        return self.call(sys.executable, "-m", "lorta", "status", "-m", *words)

    def specs(self, words: list[str], store: str = "runs") -> tuple[RunSpec, ...]:
        places = [f"runtime.runs={self.folder / store}", f"runtime.cache={self.folder / 'cache'}"]
        return make_plan([*words, *places], True, CONF).specs

    def record(self, spec: RunSpec):
        return Store(spec.settings.runtime.runs).last(spec.signature)

    def until(self, fact, what: str) -> None:
        """Wait for a fact."""
        end = time.monotonic() + PATIENCE_S
        while not fact():
            if time.monotonic() > end:
                logs = "".join(path.read_text() for path in self.folder.glob("runs/slurm/*/*log.out"))
                pytest.fail(f"{what} did not happen\n{self.call('squeue')}\n{logs}")
            time.sleep(0.05)

    def ended(self, spec: RunSpec) -> bool:
        """Whether the run has ended; one that went back into the queue has not."""
        record = self.record(spec)
        return record is not None and record.status not in ("running", "preempted")


@pytest.fixture(scope="module")
def submitted(cluster, tmp_path_factory):
    """The cluster with two arrays in its queue, of two long runs and of three short ones; what was said; their ids."""
    found = Cluster(cluster, tmp_path_factory.mktemp("arrays"))
    said = [found.submit(words) for words in (TWO, THREE)]
    return found, said, *map(submitted_id, said)


def submitted_id(said: str) -> str:
    """Return the Slurm job that a submission names."""
    job = re.search(r"submitted as Slurm job (\d+);", said)
    assert job, said
    return job.group(1)


def test_submitting_says_how_many_and_imports_no_torch(submitted):
    said = submitted[1]
    facts = [re.findall(r"\d+ to submit|without torch", text) for text in said]
    assert facts == [["2 to submit", "without torch"], ["3 to submit", "without torch"]]


def test_what_slurm_refuses_is_a_sentence_and_leaves_nothing(submitted):
    found = submitted[0]
    words = [*SMALL, "seed=10", "runtime.runs=refused"]
    said = found.submit(words, "hydra.launcher.partition=nowhere", status=2)
    assert "nothing was submitted: sbatch: error: invalid partition specified: nowhere" in said
    assert list(found.folder.glob("refused/**/*.*")) == []


def test_what_is_in_the_queue_is_not_submitted_again(submitted):
    found, words = submitted[0], [*SMALL, "seed=11,12"]
    begin = "hydra.launcher.additional_parameters={begin:now+1hour}"  # so that it is still in the queue
    job = submitted_id(found.submit(words, begin))
    again = found.submit(words, begin)
    assert "2 runs: 0 to submit" in again
    assert "submitted as" not in again
    last = rf"pending +[0-9a-f]{{12}}  head_only glue/cola seed 12: Slurm job {job}_1: PENDING"
    assert re.search(last, found.status(words))
    found.call("scancel", job)


def test_a_signalled_run_goes_on_and_a_cancelled_one_says_so(submitted):
    found, _, two, _ = submitted
    requeued, cancelled = found.specs(TWO)
    orders = {requeued.folder: ("--signal=USR1", f"{two}_0"), cancelled.folder: (f"{two}_1",)}
    while orders:  # whichever trains first
        found.until(lambda: any((folder / PROGRESS_NAME).exists() for folder in orders), "training")
        for folder in [folder for folder in orders if (folder / PROGRESS_NAME).exists()]:
            found.call("scancel", *orders.pop(folder))
    (undisturbed, _) = found.specs(TWO, "undisturbed")
    (whole,) = [record for record in run_all([undisturbed], 0) if record is not None]
    for spec in (requeued, cancelled):
        found.until(lambda spec=spec: found.ended(spec), "the end of a run")
    left, done = found.record(cancelled), found.record(requeued)
    assert (left.status, left.slurm_job) == ("cancelled", f"{two}_1")
    assert left.failure.message.startswith(f"Slurm job {two}_1 was cancelled (scancel)")
    assert (done.status, done.attempt, done.slurm_job, done.run_id) == ("success", 2, f"{two}_0", requeued.signature)
    assert 0 < done.resumed_from_step < 600
    assert (done.predictions_file, done.history_file) == (whole.predictions_file, whole.history_file)
    assert done.metrics == whole.metrics


def test_every_run_of_the_array_ends_with_a_record(submitted):
    found, _, _, three = submitted
    specs = found.specs(THREE)
    for spec in specs:
        found.until(lambda spec=spec: found.ended(spec), "the end of a run")
    records = [found.record(spec) for spec in specs]
    assert [(record.status, record.slurm_job) for record in records] == [("success", f"{three}_{n}") for n in range(3)]
    assert "3 runs: 3 done" in found.status(THREE)
    assert "\ntiny, embedded data" in found.submit(THREE)  # nothing is left but a table to print
