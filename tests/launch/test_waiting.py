"""A sweep that waits for another one's runs says so, once."""

import re

import pytest

from lorta.launch.local import run_all
from lorta.records.locks import take
from tests.faults.sweeps import plan
from tests.launch.test_workers import with_pools


@pytest.fixture
def spec(tmp_path):
    (found,) = plan(tmp_path / "a", "adapter=head_only")
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_whom_a_run_waits_for_is_said_once(spec, workers, monkeypatch):
    """It waited without end and without a word."""
    with_pools(monkeypatch, False)
    claim = take(spec.folder)
    said: list[str] = []
    runs = run_all([spec], workers, say=said.append)
    assert [next(runs) for _ in range(3)] == [None] * 3
    claim.release()
    runs.close()
    (sentence,) = said
    assert re.fullmatch(
        rf"waiting for run {spec.run_id}, which is at work elsewhere: process \d+ on \S+ since \S+Z", sentence
    )
