"""Commands collect little garbage: rarely while they plan, and none when they end."""

import atexit
import gc
from collections.abc import Callable
from typing import Any

import pytest

from lorta.cli import main, run
from lorta.system.collection import rare_collections


@pytest.mark.parametrize("command", [main.main, run.main])
def test_the_end_of_a_command_searches_no_modules_for_garbage(
    command: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_end: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    monkeypatch.setattr(atexit, "unregister", lambda called: None)
    for _ in range(2):
        try:
            command(["--help"])
        except SystemExit as ended:
            assert ended.code == 0
    assert at_the_end == [gc.freeze] * 2


def test_a_command_that_is_called_twice_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_end: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    monkeypatch.setattr(atexit, "unregister", at_the_end.remove)
    at_the_end.append(gc.freeze)
    run.main(["--help"])
    assert at_the_end == [gc.freeze]


def test_collections_are_as_before_behind_the_block() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="wrong"), rare_collections():
        assert gc.get_threshold()[0] > before[0]
        raise ValueError("wrong")
    assert gc.get_threshold() == before
