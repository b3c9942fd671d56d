"""A sweep that is ended or killed takes its workers with it; what they were at goes on where it was."""

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
from lorta.records.record import RunRecord
from lorta.records.store import PROGRESS_NAME, Store
from lorta.system.preemption import EXIT_STATUS, SIGNALS

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
def begun(tmp_path):
    """A sweep, a group of processes of its own, while two of its runs train; its runs; and the processes it started."""
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = [*WORDS, "runtime.workers=2", *places]
    specs = make_plan(words[1:], True, CONF).specs
    environment, command = os.environ | {"PYTHONPATH": str(ROOT)}, [sys.executable, str(ROOT / "run.py"), *words]
    processes: list[psutil.Process] = []
    with (tmp_path / "said.txt").open("w") as said:
        sweep = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        until(lambda: len(training(specs)) == 2 or sweep.poll() is not None, "training in two workers")
        processes = psutil.Process(sweep.pid).children(recursive=True)
        yield sweep, specs, processes
    finally:
        sweep.kill()
        sweep.wait()
        for process in alive(processes):
            process.kill()


def left_by(specs: tuple[RunSpec, ...]) -> list[tuple[RunSpec, RunRecord]]:
    return [(spec, record) for spec in specs if (record := Store(spec.settings.runtime.runs).read(spec.signature))]


def test_workers_end_behind_a_checkpoint_when_their_sweep_is_killed(begun):
    sweep, specs, processes = begun
    sweep.kill()
    assert len(processes) >= 4  # two at work, one waiting, and the server they are forked from
    until(lambda: not alive(processes), "the end of all workers")
    left = left_by(specs)
    assert [record.status for _, record in left] == ["preempted", "preempted"]
    assert [spec for spec, record in left if not (spec.folder / "checkpoint" / str(record.failure.step)).is_dir()] == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_whole_group_ends_the_sweep_behind_its_workers(begun, tmp_path, number):
    """As `timeout` and schedulers send it. The server died of it, and the sweep took its own workers for others'."""
    sweep, specs, processes = begun
    os.killpg(sweep.pid, number)
    assert sweep.wait(PATIENCE_S) == EXIT_STATUS
    assert [record.status for _, record in left_by(specs)] == ["preempted", "preempted"]
    assert "elsewhere" not in (tmp_path / "said.txt").read_text()
    until(lambda: not alive(processes), "the end of all workers")
