"""A sweep that waits for another one's runs says so, once."""

import re

import pytest

from lorta.launch.local import run_all
from lorta.records.locks import take
from tests.faults.sweeps import plan


@pytest.fixture
def spec(tmp_path):
    (found,) = plan(tmp_path / "a", "adapter=head_only")
    return found


def test_whom_a_run_waits_for_is_said_once(spec, monkeypatch):
    """It waited without end and without a word."""
    monkeypatch.setattr("lorta.launch.local.POLL_S", 0.01)
    claim = take(spec.folder)
    said: list[str] = []
    runs = run_all([spec], 0, say=said.append)
    assert [next(runs) for _ in range(3)] == [None] * 3
    claim.release()
    (sentence,) = said
    assert re.fullmatch(
        rf"waiting for run {spec.run_id}, which is at work elsewhere: process \d+ on \S+ since \S+Z", sentence
    )
