"""`lorta completion`: the shell's file is written once, and the Tab key gets what can follow."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorta.cli.completion import overrides, place, run_ids
from lorta.cli.main import main
from lorta.records.store import Store
from tests.example_records import finished


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_one_command_writes_the_file_that_a_shell_reads(shell, tmp_path, monkeypatch, capsys):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for _ in range(2):  # again after an update
        assert main(["completion", "install", shell]) == 0
    assert str(place(shell)) in capsys.readouterr().out
    assert main(["completion", "show", shell]) == 0
    assert place(shell).read_text() in capsys.readouterr().out
    place(shell).write_text("mine")
    assert main(["completion", "install", shell]) == 2
    assert "is of another program" in capsys.readouterr().err and place(shell).read_text() == "mine"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("adapter=head", ["adapter=head_only"]),
        ("adapter=lora,head", ["adapter=lora,head_only"]),
        ("ada", ["adapter="]),
        ("task=glue/rt", ["task=glue/rte"]),
        ("nothing=x", []),
    ],
)
def test_settings_are_completed(typed, expected):
    assert overrides(typed) == expected


def test_ids_of_a_store_are_completed(tmp_path):
    record = finished()
    Store(tmp_path).write(record)
    assert run_ids(record.run_id[:4], argparse.Namespace(runs=tmp_path)) == [record.run_id]
    assert run_ids("zz", argparse.Namespace(runs=tmp_path)) == []


def test_the_tab_key_gets_them_through_the_command(tmp_path):
    """As the shell's function calls it, in one process for a command's words."""
    line, file = "lorta plan adapter=lort", tmp_path / "said"
    told = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    told |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(file), "_ARGCOMPLETE_SHELL": "zsh"}
    command = [sys.executable, "-m", "lorta"]
    root = Path(__file__).parents[2]
    subprocess.run(command, env={**os.environ, **told}, cwd=root, check=True, capture_output=True)
    assert file.read_text().startswith("adapter=lorta")
