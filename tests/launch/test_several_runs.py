"""Short runs share a process: each gives the bytes that it gives alone, and a wrong one takes no other along."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lorta.config.places import CONF
from lorta.launch import local, preload, worker
from lorta.launch.local import run_all
from lorta.launch.worker import MOST, runs_per_process
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.store import Store
from tests.faults.sweeps import outcome, plan
from tests.launch import recorder
from tests.launch.test_gpus import PLAIN, forget_the_gpus, pretend

__all__ = ["forget_the_gpus"]
ROOT = Path(__file__).parents[2]
PATCHING = ("adalora", "boft", "loretta_adp", "prompt_tuning", "vera")  # they change PEFT, the model, or keep state
SHORTEST = ["trainer=smoke", "task=glue/cola", "trainer.max_steps=2", "trainer.per_device_train_batch_size=8"]
SHORTEST += ["data.max_train_samples=16", "data.max_eval_samples=16", "runtime.workers=1"]
IN_A_PROCESS = """
import sys
from pathlib import Path
from tests.launch.test_several_runs import in_one_process
in_one_process(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]))
"""


def in_one_process(folder: Path, adapters: list[str], runs: int) -> None:
    """Do a run of each adapter in this order, so many to a process, unless it is done."""
    specs = in_order(folder, adapters, f"runtime.runs_per_process={runs}")
    todo = [spec for spec in specs if not Store(spec.settings.runtime.runs).finished(spec.run_id)]
    for _ in run_all(todo, 1) if todo else ():
        pass


def in_order(folder: Path, adapters: list[str], *words: str) -> tuple[RunSpec, ...]:
    """The shortest run of each adapter."""
    places = {"runs": folder / "runs", "cache": folder.parent / "cache", "results": folder / "results"}
    where = [f"runtime.{name}={place}" for name, place in places.items()]
    found = make_plan([f"adapter={','.join(adapters)}", *SHORTEST, *where, *words], True, CONF)
    assert not found.problems, found.problems
    return tuple(sorted(found.specs, key=lambda spec: adapters.index(spec.choices["adapter"])))


def outcomes(folder: Path, adapters: list[str], runs: int) -> dict[str, Any]:
    """Scores, parameters and bytes of each run."""
    in_one_process(folder, adapters, runs)
    return outcome(in_order(folder, adapters))


def outcomes_with_hash_seed(folder: Path, adapters: list[str], runs: int, hash_seed: int) -> dict[str, Any]:
    """The same of runs under a server that has this hash seed."""
    variables = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", IN_A_PROCESS, str(folder), ",".join(adapters), str(runs)]
    subprocess.run(command, cwd=ROOT, env=variables, check=True)
    return outcome(in_order(folder, adapters))


def test_runs_of_one_process_give_the_bytes_of_runs_alone_in_any_order(tmp_path):
    alone = outcomes(tmp_path / "alone", [*PATCHING], 1)
    assert outcomes(tmp_path / "forward", [*PATCHING], MOST) == alone
    assert outcomes(tmp_path / "backward", [*reversed(PATCHING)], MOST) == alone


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", [0, 1, 2])
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_every_adapter_leaves_nothing_behind(tmp_path_factory, order, hash_seed):
    adapters = sorted(file.stem for file in (CONF / "adapter").glob("*.yaml"))
    base = tmp_path_factory.getbasetemp() / "every_adapter"
    alone = outcomes(base / "alone", adapters, 1)  # done once for all
    ordered = adapters if order == "forward" else adapters[::-1]
    assert outcomes_with_hash_seed(base / f"{order}_{hash_seed}", ordered, len(adapters), hash_seed) == alone


def swept(folder: Path, patch: pytest.MonkeyPatch, specs: list[Any]) -> tuple[list[Any], list[dict]]:
    """The records and notes of runs that train nothing, by one worker."""
    pretend(folder, patch, PLAIN[:1])  # then no server imports torch
    patch.setattr(local, "attempt", recorder.attempt)
    patch.setattr(local, "lost", recorder.lost)
    patch.setattr(preload, "imports", lambda specs: preload.Imports((recorder.__name__,), frozenset()))
    before = {spec.run_id: 0 for spec in specs}
    records = [record for record in run_all(specs, 1, before) if record is not None]
    return sorted(records, key=lambda record: int(record.run_id)), recorder.notes(folder)


def test_a_failure_ends_a_process_and_a_kill_costs_one_run(tmp_path, monkeypatch):
    """Of nine runs, four to a process, the second fails and the fifth, third of its process, is killed."""
    specs = [recorder.light(tmp_path, seed, runs_per_process=4) for seed in range(9)]
    for seed, fault in ((1, recorder.FAILS), (4, recorder.KILLED)):
        (specs[seed].folder / fault).mkdir(parents=True)
    records, notes = swept(tmp_path, monkeypatch, specs)
    statuses = [record.status for record in records]
    assert statuses == ["success", "failed", "success", "success", "failed", *["success"] * 4]
    assert records[4].failure.message.startswith("the process ended with code -9")
    assert sorted(note["seed"] for note in notes) == list(range(9))
    assert sorted(Counter(note["process"] for note in notes).values()) == [2, 3, 4]
    assert {note["left"] for note in notes} <= {"", None}


def test_who_asks_for_a_process_of_its_own_gets_one(tmp_path, monkeypatch):
    specs = [recorder.light(tmp_path, seed, 4, own_process=seed == 1) for seed in range(3)]
    _, notes = swept(tmp_path, monkeypatch, specs)
    assert len({note["process"] for note in notes}) == 3


def test_several_runs_share_a_process_where_all_are_short(tmp_path, monkeypatch):
    short = plan(tmp_path / "a", "adapter=head_only", "seed=0,1")
    assert runs_per_process(short) == MOST
    (long,) = (spec for spec in make_plan(["adapter=head_only", "trainer=standard"], False, CONF).specs)
    assert runs_per_process([*short, long]) == 1
    limited = plan(tmp_path / "a", "adapter=head_only", "runtime.memory_limit_mib=2000", "runtime.runs_per_process=9")
    assert runs_per_process(limited) == 1
    assert runs_per_process(plan(tmp_path / "a", "adapter=head_only", "runtime.runs_per_process=9")) == 9
    assert runs_per_process(plan(tmp_path / "a", "adapter=head_only", "runtime.runs_per_process=1")) == 1
    monkeypatch.setattr(worker, "own_folders", lambda: [tmp_path])
    assert runs_per_process(short) == 1


def test_no_run_in_a_process_is_refused():
    problems = make_plan(["adapter=lora", "runtime.runs_per_process=0"], False, CONF).problems
    assert problems
    assert all(problem.startswith("runtime.runs_per_process=0: ") for problem in problems)
