"""The commands of docs/own_data.md do what the page says, in-process; training is replaced by its plan."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from lorta.cli.main import main
from lorta.records.store import Store
from tests.example_records import finished

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)  # language and content
COMMANDS = [line for language, content in BLOCKS if not language for line in content.splitlines()]


def block(language: str, number: int = 0) -> str:
    return [content for name, content in BLOCKS if name == language][number]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the files that the page shows, and a store with a finished run."""
    files = {
        "tickets/tickets.csv": block("text"),
        "cost.py": block("python"),
        "mine/task/tickets.yaml": block("yaml", 0),
        "mine/adapter/wide_lora.yaml": block("yaml", 1),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    Store(tmp_path / "runs").write(finished("lora"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("lorta ")])
def test_each_command_of_the_page_is_right(command, folder, capsys):
    _, name, *words = shlex.split(command)
    assert main(["plan" if name == "run" else name, *words]) == 0
    printed = capsys.readouterr()
    if name in ("plan", "run"):
        assert "4 classes: billing, login, other, shipping" in printed.err
        assert "missing" in printed.out
    if name == "list":
        (line,) = [line for line in printed.out.splitlines() if line.startswith("adapter=wide_lora ")]
        assert line.endswith("LoRA on all four projections of attention")


def test_the_page_has_at_most_five_commands_to_the_first_table():
    first = next(content for language, content in BLOCKS if not language)
    assert "lorta run -m" in first and len(first.splitlines()) <= 5


def test_the_pages_task_and_method_have_the_sizes_that_they_say(folder, capsys):
    words = "plan --conf mine -m adapter=lora,wide_lora task=tickets data.root=tickets data.columns=[message]"
    assert main([*words.split(), "data.holdout=0.25", "rank=4"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "tickets" in line and "lora" in line]
    assert [(row[1], row[5]) for row in rows] == [("lora", "36,864"), ("wide_lora", "73,728")]
