"""`lorta show`, `ls`, `diff` and the states of a sweep read records as strangers may have written them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorta.cli.main import main
from lorta.config.places import RESULTS
from lorta.records.store import RECORD_NAME
from lorta.status.shapes import printable, shaped
from lorta.status.states import glance

RUNS = sorted((RESULTS / "reference_runs").glob(f"*/{RECORD_NAME}"))[:2]
STEERING = "\x1b[2J\x1b]0;title\x07 \u202egnp.\r\x9b2J"
FAILURE = {"kind": "bug", "phase": "train", "type": STEERING, "message": STEERING, "traceback_file": STEERING}
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an adapter's name": lambda values: values["adapter"].update(name=STEERING),
    "a task's name": lambda values: values["task"].update(name=STEERING),
    "settings": lambda values: values.update(overrides=[STEERING]),
    "a failure": lambda values: values.update(status="failed", failure=FAILURE),
    "a metric's name": lambda values: values.update(metrics={"evaluation": {STEERING: {"value": 1.0, "n": 1}}}),
    "splits in a list": lambda values: values["task"].update(splits=[1]),
    "splits of texts": lambda values: values["task"].update(splits={"train": {"read": 3, "dropped": {"x": "y"}}}),
    "metrics in a list": lambda values: values.update(metrics=[1]),
    "a metric that is a number": lambda values: values.update(metrics={"evaluation": {"accuracy": 3}}),
    "a score that is a text": lambda values: values.update(metrics={"evaluation": {"accuracy": {"value": "high"}}}),
    "sizes in a text": lambda values: values.update(params="many"),
    "a size that is a text": lambda values: values["params"].update(adapter="many"),
    "seconds in a list": lambda values: values.update(time=[1]),
    "settings that are a number": lambda values: values.update(overrides=7),
    "a failure of one word": lambda values: values.update(status="failed", failure="bad"),
    "a failure without a kind": lambda values: values.update(status="failed", failure={"traceback_file": 3}),
    "a commit that is a number": lambda values: values["code"].update(git_sha=7),
    "no adapter": lambda values: values.update(adapter=None),
    "no configuration": lambda values: values.update(config=None),
}


@pytest.fixture
def store(tmp_path) -> Path:
    for file in RUNS:
        shutil.copytree(file.parent, tmp_path / file.parent.name)
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_of_another_shape_or_with_steering_characters_is_shown_all_the_same(change, store, capsys):
    """Issue 17, relatives of A26 and D25: names cleared the screen of who listed a store, and one record ended `ls`."""
    names = [file.parent.name for file in RUNS]
    file = store / names[0] / RECORD_NAME
    values = json.loads(file.read_text())
    CHANGES[change](values)
    file.write_text(json.dumps(values))
    for words in (["show", names[0]], ["ls"], ["diff", *names]):
        assert main([*words, "--runs", str(store)]) == 0
    said = capsys.readouterr()
    assert not set("\x1b\x07\r\x9b\u202e") & set(said.out + said.err)
    assert names[1] in said.out


def test_a_sound_record_is_what_it_was(store):
    values = json.loads(RUNS[0].read_text())
    record = glance(store / RUNS[0].parent.name)
    assert record is not None and record.values == values == shaped(values)


def test_escapes_are_those_of_python_and_lines_stay():
    assert printable({"a\x1b": ["\x07", "two\nlines\té", 3]}) == {"a\\x1b": ["\\x07", "two\nlines\té", 3]}
