"""Several GPUs, which are pretended: nvidia-smi is a script, and runs note what their process was given."""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorta.config.places import CONF
from lorta.launch import local, preload
from lorta.launch.lanes import CONTEXT_BYTES, runs_per_gpu, spread
from lorta.launch.local import WorkersUnavailable, run_all, worker_count
from lorta.planning.planner import make_plan
from lorta.records.sections import Batch, Failure, Memory
from lorta.records.store import Store
from lorta.runner.record_builder import first_record
from lorta.system import gpus
from tests.example_records import finished
from tests.faults.sweeps import plan, with_fault
from tests.launch import recorder
from tests.launch.test_workers import InThisThread

GIB = 2**30
PLAIN = [f"GPU {number}: NVIDIA H200 (UUID: GPU-{number}a{number}b)" for number in range(4)]
DIVIDED = [
    PLAIN[0],
    "GPU 1: NVIDIA H200 (UUID: GPU-1a1b)",
    "  MIG 3g.71gb     Device  0: (UUID: MIG-11c)",
    "  MIG 3g.71gb     Device  1: (UUID: MIG-11d)",
]


def pretend(folder: Path, patch: pytest.MonkeyPatch, listed: list[str], free_gib: int = 100) -> None:
    """This machine has the GPUs that nvidia-smi would list so, with so much free memory each."""
    memory = [f"{line.split('UUID: ')[1][:-1]}, {free_gib * 1024}" for line in listed if line.startswith("GPU")]
    script = folder / "bin" / "nvidia-smi"
    script.parent.mkdir(exist_ok=True)
    text = {True: "\n".join(listed), False: "\n".join(memory)}
    script.write_text(f"#!/bin/sh\nif [ $1 = -L ]; then echo '{text[True]}'; else echo '{text[False]}'; fi\n")
    script.chmod(0o755)
    patch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    patch.delenv(gpus.VARIABLE, raising=False)
    patch.setattr(gpus, "DRIVER", folder)
    gpus.installed.cache_clear()


@pytest.fixture(autouse=True)
def forget_the_gpus() -> Iterator[None]:
    yield
    gpus.installed.cache_clear()


@pytest.mark.parametrize(
    ("listed", "asked", "seen"),
    [
        (PLAIN[:2], None, ("GPU-0a0b", "GPU-1a1b")),
        (PLAIN[:2], "1,0", ("1", "0")),
        (PLAIN, "GPU-3a3b, GPU-1", ("GPU-3a3b", "GPU-1")),
        (DIVIDED, None, ("GPU-0a0b", "MIG-11c", "MIG-11d")),
        (DIVIDED, "MIG-11d", ("MIG-11d",)),
        (PLAIN, "2,-1,3", ("2",)),
        (PLAIN, "", ()),
        (PLAIN, "-1", ()),
        (PLAIN, "NoDevFiles", ()),  # Slurm's, for a task that asked for none
        ([], None, ("0",)),  # no answer: one is certain
        ([], "3,5", ("3", "5")),  # no answer: the user knows
    ],
)
def test_the_users_own_list_of_gpus_is_kept(tmp_path, monkeypatch, listed, asked, seen):
    pretend(tmp_path, monkeypatch, listed)
    if asked is not None:
        monkeypatch.setenv(gpus.VARIABLE, asked)
    assert gpus.visible_gpus() == seen
    assert gpus.gpu_problems() == []


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("0,7", "there is no GPU '7' here, and CUDA ends the list there: choose of 0, 1, 2, 3, or UUIDs"),
        ("GPU-9", "there is no GPU 'GPU-9' here"),
        ("GPU-", "there is no GPU 'GPU-' here"),  # the beginning of four
        ("0;1", "there is no GPU '0;1' here"),
        ("1,GPU-1a", "it names GPU GPU-1a twice, and CUDA then sees none"),
    ],
)
def test_a_list_of_gpus_that_does_not_exist_is_refused_by_the_plan(tmp_path, monkeypatch, asked, sentence):
    pretend(tmp_path, monkeypatch, PLAIN)
    monkeypatch.setenv(gpus.VARIABLE, asked)
    (problem,) = make_plan(["adapter=lora"], False, CONF).problems
    assert problem.startswith(f"environment variable CUDA_VISIBLE_DEVICES={asked}: {sentence}")


def test_without_gpus_the_variable_is_nobodys_business(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    monkeypatch.setenv(gpus.VARIABLE, "0,7")
    assert (gpus.visible_gpus(), gpus.gpu_problems()) == ((), [])


def test_runs_are_spread_over_gpus():
    assert list(spread(5, ("a", "b"))) == [("a", 3), ("b", 2)]
    assert list(spread(2, ("a", "b", "c"))) == [("a", 1), ("b", 1)]
    assert list(spread(2, ("a",))) == [(None, 2)]
    assert list(spread(2, ())) == [(None, 2)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The notes and the records of five runs on two pretended GPUs; the third run's process is killed."""
    folder = tmp_path_factory.mktemp("swept")
    specs: list[Any] = [recorder.light(folder, seed) for seed in range(5)]
    before = {spec.run_id: 0 for spec in specs}
    (specs[2].folder / recorder.KILLED).mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        pretend(folder, patch, PLAIN[:2])
        patch.setattr(local, "attempt", recorder.attempt)
        patch.setenv(recorder.LEFT, "")
        patch.setattr(local, "lost", recorder.lost)
        patch.setattr(preload, "imports", lambda specs: preload.Imports((recorder.__name__,), frozenset()))
        workers = worker_count(specs)
        records = {record.run_id: record for record in run_all(specs, workers, before) if record is not None}
        here = next(iter(run_all(specs[:1], 0, before)))
        assert gpus.VARIABLE not in os.environ
        assert os.environ[recorder.LEFT] == ""
    return recorder.notes(folder), [records[spec.run_id] for spec in specs], workers, here


def test_a_worker_sees_one_gpu_before_it_imports_anything(swept):
    notes, _, workers, _ = swept
    assert workers == 2
    assert {note["gpu"] for note in notes} == {"GPU-0a0b", "GPU-1a1b"}
    assert all(note["at_import"] == note["gpu"] for note in notes[:-1])
    assert {note["seed"]: note["gpu"] for note in notes[:-1] if note["seed"] < 2} == {0: "GPU-0a0b", 1: "GPU-1a1b"}


def test_two_runs_never_share_a_gpu_unless_they_are_told_to(swept):
    notes = swept[0][:-1]
    pairs = [(a, b) for a in notes for b in notes if a["gpu"] == b["gpu"] and a["begun"] < b["begun"]]
    assert pairs
    assert all(a["ended"] <= b["begun"] for a, b in pairs)
    assert not any(note["shares"] for note in notes)


def test_a_process_that_is_killed_in_the_third_run_costs_that_run_only(swept):
    notes, records, *_ = swept
    assert [record.status for record in records] == ["success", "success", "failed", "success", "success"]
    assert records[2].failure.message.startswith("the process ended with code -9")
    assert sorted(note["seed"] for note in notes[:-1]) == [0, 1, 2, 3, 4]


def test_what_a_run_changes_in_its_process_is_gone_in_the_next(swept):
    unchanged = {"", None}  # None: the server that workers are forked from is an earlier test's, and lacks the variable
    assert {note["left"] for note in swept[0][:-1]} <= unchanged


def test_a_run_in_this_process_sees_the_first_of_several_gpus(swept):
    notes, _, _, here = swept
    assert (notes[-1]["gpu"], here.status) == ("GPU-0a0b", "success")


def test_runs_per_gpu_below_one_is_refused(tmp_path):
    problems = make_plan(["adapter=lora", "runtime.runs_per_gpu=0"], False, CONF).problems
    assert problems
    assert all(problem.startswith("runtime.runs_per_gpu=0: ") for problem in problems)


def done_on_a_gpu(spec, peak: int, **changes) -> None:
    """Leave the record of a run that reserved so many bytes of a GPU."""
    own = {"run_id": spec.run_id, "config_hash": spec.config_hash, "config": spec.config}
    record = replace(finished(), **own, memory=Memory(train_peak_reserved_bytes=peak), **changes)
    Store(spec.settings.runtime.runs).write(record)


def test_as_many_runs_share_a_gpu_as_earlier_peaks_allow(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, PLAIN[:2], free_gib=16)
    specs = plan(tmp_path / "a", "adapter=head_only", "seed=0,1,2,3,4,5,6,7,8,9")
    names = gpus.visible_gpus()
    assert runs_per_gpu(specs, names) == 1  # nothing is known
    done_on_a_gpu(specs[0], 4 * GIB - CONTEXT_BYTES)
    assert runs_per_gpu(specs, names) == 3
    assert worker_count(specs) == 6
    assert runs_per_gpu(specs[:2], names) == 1  # one for each GPU
    (longer,) = plan(tmp_path / "a", "adapter=head_only", "data.max_length=32")
    assert runs_per_gpu([*specs, longer], names) == 1  # of another size
    done_on_a_gpu(longer, GIB, batch=Batch(effective=8, micro=4, grad_accum=2, micro_requested=8))
    assert runs_per_gpu([*specs, longer], names) == 1  # it was made smaller to fit
    done_on_a_gpu(specs[1], 100 * 2**20)
    done_on_a_gpu(specs[0], 100 * 2**20)
    assert runs_per_gpu(specs, names) == 4  # more would fit


def test_more_runs_than_fit_a_gpu_are_refused_with_the_number_that_fits(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, PLAIN[:1], free_gib=16)
    specs = plan(tmp_path / "a", "adapter=head_only", "seed=0,1,2,3,4", "runtime.runs_per_gpu=5")
    assert worker_count(specs) == 5  # nothing is known: they try
    done_on_a_gpu(specs[0], 4 * GIB - CONTEXT_BYTES)
    with pytest.raises(WorkersUnavailable, match=r"^runtime.runs_per_gpu=5: .* 4.0 GiB each.*: at most 3 fit"):
        worker_count(specs)
    pretend(tmp_path, monkeypatch, DIVIDED[1:], free_gib=16)  # of an instance nobody knows what is free
    assert worker_count(specs) == 5


def test_a_setting_of_workers_is_the_most_at_once(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, PLAIN[:2])
    three = plan(tmp_path / "a", "adapter=head_only", "seed=0,1,2,3", "runtime.workers=3")
    assert worker_count(three) == 3  # two share one: they were asked for
    one_each = plan(tmp_path / "a", "adapter=head_only", "seed=0,1,2,3", "runtime.workers=3", "runtime.runs_per_gpu=1")
    assert worker_count(one_each) == 2


class Full(InThisThread):
    """A pool on a GPU that has memory for one run at a time."""

    given: list[tuple[int, int, bool]]

    def schedule(self, function, arguments, timeout):
        _, spec, before, shares = arguments
        self.given.append((spec.settings.seed, before, shares))
        record = replace(first_record(spec), attempt=before + 1)
        failure = Failure(kind="oom", type="OutOfMemoryError", message="CUDA out of memory", phase="train")
        future: Future = Future()
        future.set_result(replace(record, status="failed", failure=failure) if shares else record)
        return future


def test_a_run_that_finds_a_shared_gpu_full_is_done_again_alone(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, PLAIN[:1])
    specs = plan(tmp_path / "a", "adapter=head_only", "seed=0,1")
    pool = Full(broken=False)
    pool.given = []
    monkeypatch.setattr(local, "_make_pool", lambda specs, workers, gpu: pool)
    monkeypatch.setattr(local, "POLL_S", 0.01)
    records = [record for record in run_all(specs, 2) if record is not None]
    assert [(record.attempt, record.failure) for record in records] == [(2, None), (2, None)]
    assert sorted(pool.given) == [(0, 0, True), (0, 1, False), (1, 0, True), (1, 1, False)]


def test_a_micro_batch_is_not_halved_beside_other_runs(tmp_path):
    """Its numbers would depend on them."""
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    record = local.attempt(with_fault(spec, "FitsTwoRows"), 0, shares_gpu=True)
    assert record is not None
    assert (record.status, record.failure and record.failure.kind) == ("failed", "oom")
    assert record.batch is not None
    assert record.batch.micro == 8


def test_a_run_refuses_a_process_in_which_cuda_has_started_with_several_gpus(tmp_path, monkeypatch):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    (record,) = run_all([spec], 0)
    assert record is not None
    assert record.failure is not None
    assert (record.failure.kind, record.failure.message[:24]) == ("config", "this process sees 4 GPUs")
