"""Machines and file systems that were not made for this: a plan or a run says so in one sentence, or goes on.

25 places. A damage of the environment that a process must be born with is tried in a process of its own; what the code
only sees as an error of the system is given to it as one.
"""

import errno
import locale
import os
import resource
import subprocess
import sys

import pytest

from lorta.cli.main import main
from lorta.config.places import CONF, ROOT
from lorta.planning.planner import make_plan
from lorta.records import store as stores
from lorta.records.store import Store, StoreUnwritable, write_atomically
from lorta.runner import os_errors
from lorta.runner.attempt import attempt
from tests.faults.sweeps import plan

PLAN = ["plan", "adapter=lora", "task=glue/rte", "model=tiny"]
LAUNCHERS = {  # what a launcher left behind -> part of the sentence
    "torchrun": ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "WORLD_SIZE"),
    "accelerate": ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "trainer.precision"),
    "dynamo": ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "ACCELERATE_DYNAMO_BACKEND"),
    "mpi": ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE"),
    "slurm's pmi": ({"PMI_SIZE": "4"}, "PMI_SIZE"),
    "deepspeed": ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED"),
    "fsdp": ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP"),
    "precision": ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "ONEDNN_DEFAULT_FPMATH_MODE"),
}
PLACES = {  # environment of a process, which plans all the same
    "POSIX locale": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1 terminal": {"PYTHONIOENCODING": "latin-1"},
    "ascii terminal": {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
    "no HOME": {"HOME": "/nonexistent", "HF_HOME": "/nonexistent/hf", "XDG_CACHE_HOME": "/nonexistent/cache"},
    "no TMPDIR": {"TMPDIR": "/nonexistent"},
    "no PATH": {"PATH": ""},
    "no colours, narrow": {"TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1"},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_a_launcher_left_behind_is_refused_with_the_remedy(launcher, monkeypatch, tmp_path, capsys):
    variables, part = LAUNCHERS[launcher]
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(PLAN) == 2
    assert part in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_plan_needs_little_of_its_environment(place, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | PLACES[place]
    command = [sys.executable, "-m", "lorta", *PLAN]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"1 run to do" in done.stdout


def test_64_file_descriptors_are_enough_to_plan(tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lorta", "plan", "-m", "adapter=lora,vera", "task=glue", "model=tiny"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, preexec_fn=limit)
    assert done.returncode == 0, done.stderr


def test_another_locale_reads_and_prints_numbers_as_before(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names = [name for name in ("de_DE.UTF-8", "C.UTF-8") if _has_locale(name)]
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, names[0])
        assert main([*PLAN, "trainer.learning_rate=1.5e-3"]) == 0
        assert "12,288" in capsys.readouterr().out
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _has_locale(name: str) -> bool:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return True


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space")])
def test_a_full_store_is_one_sentence_and_keeps_what_it_had(number, remedy, tmp_path, monkeypatch):
    file = tmp_path / "record.json"
    write_atomically(file, "before")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stores.os, "fsync", refuse)
    with pytest.raises(StoreUnwritable, match=remedy):
        write_atomically(file, "after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_store_stops_a_sweep_with_one_sentence(number, tmp_path, monkeypatch):
    (spec,) = plan(tmp_path / "a", "adapter=head_only")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "a/runs"))

    monkeypatch.setattr(stores.tempfile, "mkstemp", refuse)
    monkeypatch.setattr(os_errors, "try_writing", refuse)
    with pytest.raises(StoreUnwritable, match=r"cannot write .*: make it writable"):
        attempt(spec, 0)


def test_a_store_of_another_user_is_read(tmp_path, capsys):
    """Their records may be read and nothing else: a status asks for no more."""
    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    record = attempt(spec, 0)
    assert record is not None and record.status == "success"
    for path in sorted((tmp_path / "a").rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert main(["status", "--runs", str(tmp_path / "a/runs")]) == 0
    assert "1 run: 1 done" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["a file", "a broken link"])
def test_a_store_whose_place_is_taken_is_one_sentence(kind, tmp_path, capsys):
    place = tmp_path / "runs"
    place.write_text("") if kind == "a file" else place.symlink_to(tmp_path / "nothing")
    words = ["adapter=head_only", "task=glue/rte", "model=tiny", f"runtime.runs={place}", "runtime.workers=0"]
    assert main(["plan", *words]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_of_a_space_and_an_accent_is_a_folder(tmp_path):
    place = tmp_path / "mes données"
    words = ["adapter=head_only", "task=glue/rte", f"runtime.runs='{place}/runs'", f"runtime.cache='{place}/cache'"]
    planned = make_plan([*words, "trainer=smoke", "trainer.max_steps=2", "data.max_eval_samples=8"], False, CONF)
    (spec,) = planned.specs
    record = attempt(spec, 0)
    assert record is not None and record.status == "success"
    assert Store(place / "runs").finished(spec.run_id)


def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path):
    """`lorta plan ... | head -1`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lorta", *PLAN]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 1
    assert "Broken pipe" not in said
    assert "Traceback" not in said
