"""A sweep that is killed takes its workers with it; what they were at goes on where it was."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.store import PROGRESS_NAME, Store

ROOT = Path(__file__).parents[2]
WORDS = ("-m", "adapter=head_only", "task=glue/cola", "seed=0,1,2", "trainer.num_train_epochs=500.0")
PATIENCE_S = 240.0  # for a busy machine; the wait itself is under a second


def until(fact, what: str) -> None:
    """Wait for a fact."""
    end = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [found for found in processes if found.is_running() and found.status() != psutil.STATUS_ZOMBIE]


def training(specs: tuple[RunSpec, ...]) -> list[RunSpec]:
    return [spec for spec in specs if (spec.folder / PROGRESS_NAME).exists()]


@pytest.fixture
def killed(tmp_path):
    """The runs of a sweep that was killed while two of them trained, and the processes that it had started."""
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = [*WORDS, "runtime.workers=2", *places]
    specs = make_plan(words[1:], True, CONF).specs
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    sweep = subprocess.Popen([sys.executable, str(ROOT / "run.py"), *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        until(lambda: len(training(specs)) == 2 or sweep.poll() is not None, "training in two workers")
        processes = psutil.Process(sweep.pid).children(recursive=True)
    finally:
        sweep.kill()
        sweep.wait()
    yield specs, processes
    for process in alive(processes):
        process.kill()


def test_workers_end_behind_a_checkpoint_when_their_sweep_is_killed(killed):
    specs, processes = killed
    assert len(processes) >= 4  # two at work, one waiting, and the server they are forked from
    until(lambda: not alive(processes), "the end of all workers")
    left = [(spec, record) for spec in specs if (record := Store(spec.settings.runtime.runs).read(spec.signature))]
    assert [record.status for _, record in left] == ["preempted", "preempted"]
    assert [spec for spec, record in left if not (spec.folder / "checkpoint" / str(record.failure.step)).is_dir()] == []
