"""What a run does about trouble by itself: less at a time, a limit, a checkpoint and a good-bye, or one sentence."""

import errno
import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from pebble import ProcessExpired
from rich.console import Console

from lorta.cli.run import run_plan
from lorta.launch.local import _expired, run_all, worker_count
from lorta.planning.planner import Plan
from lorta.records import store as stores
from lorta.records.store import Store, StoreUnwritable, write_atomically
from lorta.runner.record_builder import failure_kind
from lorta.system.preemption import EXIT_STATUS, Preempted, handle_preemption_signals
from lorta.training.recovery import (
    halved,
    held_bytes,
    limited_memory,
    settings_of_checkpoint,
    with_micro_batch,
    write_checksums,
)
from tests.faults.sweeps import plan, with_fault
from tests.training.test_trainer import settings


def run(*specs, workers: int = 0):
    return [record for record in run_all(specs, workers) if record is not None]


@pytest.mark.parametrize(
    ("micro", "accumulation", "smaller"),
    [(32, 1, (16, 2)), (3, 2, (1, 6)), (6, 2, (3, 4)), (5, 1, (1, 5)), (2, 3, (1, 6))],
)
def test_half_a_micro_batch_keeps_the_batch(micro, accumulation, smaller):
    trainer = settings(per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation)
    found = halved(trainer)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == smaller


def test_one_row_cannot_be_halved():
    assert halved(settings(per_device_train_batch_size=1)) is None


def test_a_checkpoint_remembers_the_micro_batch_that_fitted(tmp_path):
    (tmp_path / "card.json").write_text('{"micro_batch": 2}')
    asked = settings(per_device_train_batch_size=8)
    assert settings_of_checkpoint(asked, tmp_path) == with_micro_batch(asked, 2)
    assert settings_of_checkpoint(asked, None) == asked


def test_out_of_memory_in_training_halves_the_micro_batch_until_it_fits(tmp_path):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")  # eight rows at a time
    (record,) = run(with_fault(spec, "FitsTwoRows"))
    assert record.status == "success", record.failure
    assert (record.batch.effective, record.batch.micro, record.batch.grad_accum) == (8, 2, 4)
    assert record.batch.micro_requested == 8
    assert record.reasons["batch.micro"] == "2 rows at a time, because more did not fit into memory"


def test_onednn_without_memory_halves_the_micro_batch_too(tmp_path):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    (record,) = run(with_fault(spec, "WithoutPrimitive"))
    assert record.status == "success", record.failure
    assert (record.batch.micro, record.batch.grad_accum) == (2, 4)


def test_a_second_start_without_memory_halves_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.faults.adapters.SecondStartFails.starts", 0)
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    (record,) = run(with_fault(spec, "SecondStartFails"))
    assert record.status == "success", record.failure
    assert (record.batch.micro, record.batch.micro_requested) == (2, 8)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("could not create a primitive"), "oom"),
        (RuntimeError("could not create a memory object"), "oom"),
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), "bug"),
        (RuntimeError("std::bad_alloc"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "oom"),
        (ImportError("libx.so: failed to map segment from shared object"), "oom"),
        (RuntimeError("can't start new thread"), "infra"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "infra"),
        (KeyError("x"), "bug"),
    ],
    ids=str,
)
def test_an_allocation_that_failed_is_out_of_memory_in_whatever_words(error, kind):
    assert failure_kind(error, "train") == kind


def test_a_thread_that_gets_no_stack_is_out_of_memory_under_a_limit():
    with limited_memory(1000):
        assert failure_kind(RuntimeError("can't start new thread"), "train") == "oom"


def test_a_process_that_dies_under_its_limit_is_out_of_memory():
    segfault = ProcessExpired("gone", code=-11)
    assert _expired(segfault, 8).kind == "oom"
    assert _expired(segfault, 8).message.endswith("code -11 under runtime.memory_limit_mib=8: give it more")
    assert _expired(segfault, None).kind == "infra"
    assert _expired(ProcessExpired("gone", code=-9), None).kind == "oom"


def test_a_limited_run_has_a_process_of_its_own(tmp_path):
    """Native code that gets no memory may end its process, which must not be the sweep's."""
    (free,) = plan(tmp_path / "a", "adapter=head_only", "runtime.workers=0")
    (limited,) = plan(tmp_path / "a", "adapter=head_only", "runtime.workers=0", "runtime.memory_limit_mib=1000")
    assert (worker_count([free]), worker_count([limited])) == (0, 1)


def test_out_of_memory_elsewhere_is_a_failure(tmp_path):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    (record,) = run(with_fault(spec, "OutOfMemory"))
    assert (record.status, record.failure.kind, record.failure.phase) == ("failed", "oom", "setup")


def test_a_run_beyond_its_memory_fails_alone(tmp_path):
    greedy, sound = plan(tmp_path / "a", "adapter=head_only", "seed=0,1", "runtime.memory_limit_mib=300")
    records = {record.run_id: record for record in run(with_fault(greedy, "Greedy"), sound, workers=1)}
    failed = records[with_fault(greedy, "Greedy").signature]
    assert (failed.status, failed.failure.kind) == ("failed", "oom")
    assert records[sound.signature].status == "success"


def test_a_limit_can_be_taken_up_again_where_it_was():
    base = held_bytes()
    held = bytearray(200 * 2**20)
    with limited_memory(100, beside=base), pytest.raises(MemoryError):
        bytearray(64 * 2**20)
    del held
    with limited_memory(100, beside=base):
        assert len(bytearray(50 * 2**20)) == 50 * 2**20


def test_the_limit_ends_with_the_block():
    size = 200 * 2**20
    with limited_memory(64), pytest.raises(MemoryError):
        bytearray(size)
    assert len(bytearray(size)) == size


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_asked_to_leave_goes_on_where_it_was(tmp_path, workers):
    (sound,) = plan(tmp_path / "sound", "adapter=head_only", f"runtime.workers={workers}")
    (whole,) = run(sound)
    (other,) = plan(tmp_path / "left", "adapter=head_only", f"runtime.workers={workers}")
    spec = with_fault(other, "AsksToLeave")  # the same identity: the name of a class is no part of it
    answers = []
    for _ in range(2):
        status = run_plan(Plan(specs=(spec,)), Console(quiet=True), parallel=True)
        answers.append((status, Store(spec.settings.runtime.runs).read(spec.signature)))
    (first, left), (second, done) = answers
    assert (first, left.status, left.failure.kind, left.failure.step) == (EXIT_STATUS, "preempted", "preempted", 7)
    assert (second, done.status, done.attempt, done.resumed_from_step) == (0, "success", 2, 7)
    assert done.predictions_file == whole.predictions_file
    assert done.history_file == whole.history_file


@pytest.mark.parametrize("harm", ["flipped", "other weights"])
def test_a_checkpoint_that_is_no_use_is_a_new_start_with_a_reason(tmp_path, harm):
    """Such a run failed at every retry."""
    (other,) = plan(tmp_path / "left", "adapter=head_only", "runtime.workers=0")
    spec = with_fault(other, "AsksToLeave")
    assert run_plan(Plan(specs=(spec,)), Console(quiet=True), parallel=False) == EXIT_STATUS
    file = spec.folder / "checkpoint" / "7" / "state.pt"
    if harm == "flipped":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:  # as no checksum tells
        torch.save({**torch.load(file, weights_only=True), "weights": {}}, file)
        (file.parent / "checksums.json").unlink()
        write_checksums(file.parent)
    (record,) = run(replace(spec, adapter=other.adapter))  # which does not ask again
    assert record.status == "success", record.failure
    assert (record.attempt, record.resumed_from_step) == (2, None)
    assert record.reasons["resumed_from_step"].startswith("started again instead of at step 7: ")


def test_a_request_to_leave_outside_of_training_is_obeyed_at_once():
    with handle_preemption_signals(), pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_store_that_cannot_be_written_to_stops_the_sweep_with_one_sentence(tmp_path, monkeypatch, capsys, number):
    specs = plan(tmp_path / "a", "adapter=head_only", "seed=0,1", "runtime.workers=0")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stores, "_replace", refuse)
    assert run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=False) == 1
    said = capsys.readouterr().out
    assert said.count("stopped: cannot write ") == 1
    assert os.strerror(number) in said
    assert "start the same command again" in said
    assert "Traceback" not in said


def test_an_error_of_one_file_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_replace", lambda *_: (tmp_path / "missing" / "file").read_text())
    with pytest.raises(FileNotFoundError) as met:
        write_atomically(tmp_path / "x", "")
    assert not isinstance(met.value, StoreUnwritable)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB, for those who may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_records_that_were_written(small_disk, tmp_path, capsys):
    specs = plan(
        tmp_path / "a", "adapter=lora", "seed=0,1,2,3,4,5", f"runtime.runs={small_disk}/runs", "runtime.workers=0"
    )
    assert run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=False) == 1
    assert "No space left on device" in capsys.readouterr().out
    records = Store(small_disk / "runs").records()
    assert records
    assert all(record.status in ("success", "running") for record in records)
