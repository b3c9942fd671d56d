"""Sweeps and workers are killed at random moments: nothing is lost, nothing is done twice, no number moves."""

import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from functools import cache
from pathlib import Path

import pytest

from lorta.records.locks import holder
from lorta.records.store import Store
from tests.example_records import finished
from tests.faults.sweeps import completed, leftovers, outcome, plan, start, sweep

FEW, MANY = ("adapter=lora,adalora",), ("adapter=lora,adalora", "seed=0,1")
TIMES = [(3, FEW), pytest.param(30, MANY, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def expected(shared):
    """The outcome of the sweep that nobody disturbs, and its seconds, by its cells; worked out once."""

    @cache
    def undisturbed(cells):
        specs = plan(shared / f"undisturbed-{len(cells)}", *cells)
        begun = time.monotonic()
        sweep(specs, workers=0)
        return outcome(specs), time.monotonic() - begun

    return undisturbed


def kill_sweeps(specs, times: int, seconds: float, chance: random.Random) -> int:
    """Start the sweep and kill it after up to `seconds`, so often; return how often it was at work."""
    met = 0
    for _ in range(times):
        process = start(specs)
        process.join(chance.uniform(0.1, seconds))
        met += process.is_alive()
        process.kill()
        process.join()
    return met


@pytest.mark.parametrize(("times", "cells"), TIMES)
def test_a_sweep_killed_at_random_moments_ends_as_if_it_had_not_been(shared, expected, times, cells):
    specs = plan(shared / f"killed-{times}", *cells)
    chance = random.Random(times)
    whole, seconds = expected(cells)
    met = kill_sweeps(specs, times, seconds * (0.5 if times == 3 else 0.06), chance)
    sweep(specs, workers=0)
    print(f"{met} of {times} kills met a sweep at work")
    assert met > 0
    assert outcome(specs) == whole
    done = completed(specs)  # a kill may come between a record and its line here, never between two runs of it
    assert len(done) == len(set(done))
    assert len(specs) - met <= len(done)
    assert set(done) <= {spec.signature for spec in specs}
    assert leftovers(specs) == []


class Killer(threading.Thread):
    """Kills a process that holds a run, so many times, at random moments."""

    def __init__(self, specs, times: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.specs, self.left, self.chance, self.done = specs, times, chance, threading.Event()

    def run(self) -> None:
        while self.left and not self.done.wait(self.chance.uniform(0.05, 0.5)):
            held = [found for spec in self.specs if (found := holder(spec.folder)) and found.pid != os.getpid()]
            if held:
                os.kill(self.chance.choice(held).pid, signal.SIGKILL)
                self.left -= 1


@pytest.mark.parametrize(("times", "cells"), TIMES)
def test_workers_killed_at_random_moments_cost_an_attempt_each(shared, expected, times, cells):
    specs = plan(shared / f"workers-{times}", *cells)
    killer = Killer(specs, times, random.Random(times))
    killer.start()
    rounds = 0
    while not all(Store(spec.settings.runtime.runs).finished(spec.signature) for spec in specs):
        sweep(specs, workers=2)
        rounds += 1
    killer.done.set()
    print(f"{times - killer.left} workers killed in {rounds} rounds")
    assert killer.left < times
    assert outcome(specs) == expected(cells)[0]
    attempts = [Store(spec.settings.runtime.runs).read(spec.signature).attempt for spec in specs]
    assert sum(attempts) <= len(specs) + times - killer.left
    assert leftovers(specs) == []


@pytest.mark.parametrize("later", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_sweeps_share_the_runs_and_do_none_twice(shared, expected, later):
    specs = plan(shared / f"two-{later}", *FEW)
    processes = [start(specs)]
    while later and Store(specs[0].settings.runtime.runs).last(specs[0].signature) is None:
        time.sleep(0.01)
    processes.append(start(specs))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(completed(specs)) == sorted(spec.signature for spec in specs)
    assert outcome(specs) == expected(FEW)[0]
    assert leftovers(specs) == []


def write_records(root: Path, seeds: range, done: Path) -> None:
    store = Store(root)
    for seed in seeds:
        record = finished(seed=seed)
        store.write(record)
        with done.open("a") as file:
            file.write(f"{record.run_id}\n")


def seeds_left(seeds: range, done: Path) -> range:
    return range(seeds.start + (len(done.read_text().split()) if done.exists() else 0), seeds.stop)


def test_of_eight_writers_that_are_killed_every_finished_record_is_whole(tmp_path):
    context, chance = multiprocessing.get_context("fork"), random.Random(0)
    parts = {tmp_path / f"done-{writer}": range(writer * 250, (writer + 1) * 250) for writer in range(8)}

    def begin(done: Path):
        process = context.Process(target=write_records, args=(tmp_path / "runs", seeds_left(parts[done], done), done))
        process.start()
        return process

    writers = {done: begin(done) for done in parts}
    kills = 0
    while alive := [done for done, process in writers.items() if process.is_alive()]:
        if kills < 12:
            time.sleep(chance.uniform(0.02, 0.2))
            done = chance.choice(alive)
            writers[done].kill()
            writers[done].join()
            writers[done] = begin(done)
            kills += 1
        else:
            writers[alive[0]].join()
    finished_ids = {name for done in parts for name in done.read_text().split()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which a torn record would be
        found = {record.run_id for record in Store(tmp_path / "runs").records()}
    assert len(finished_ids) == 2000
    assert found == finished_ids
