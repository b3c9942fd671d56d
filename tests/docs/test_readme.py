"""README.md: its commands plan, and the runs that it shows are those of its command."""

import re
import shlex
from pathlib import Path

import pytest

from lorta.config.places import CONF
from lorta.planning.planner import make_plan

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^(?:\$ )?(?:python run\.py|lorta run) (-m .*?)(?:\s+# .*)?$", README, re.MULTILINE)
PLANNED = [command for command in COMMANDS if "FOLDER" not in command and "tickets.csv" not in command]


@pytest.mark.parametrize("command", PLANNED)
def test_a_command_plans(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(command)
    plan = make_plan(words, True, CONF)
    assert plan.problems == () and len(plan.runs) > 1


def test_the_quickstart_shows_the_runs_of_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(COMMANDS[0])
    shown = re.findall(r"^\[\d/3\] (\w+) .* (\w+) adapter.*\(record (\w{12})\)$", README.replace(",", ""), re.MULTILINE)
    runs = make_plan(words, True, CONF).runs
    assert [(run.settings.adapter["name"], str(run.parameters), run.run_id) for run in runs] == shown
