"""Tracking that is switched on when runs have finished already sends them, too."""

import pytest
from rich.console import Console

from lorta.cli.run import run_plan
from lorta.planning.planner import Plan
from lorta.records.store import Store
from lorta.runner import tracking
from lorta.runner.attempt import attempt
from tests.faults.sweeps import plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store with one finished run."""
    place = tmp_path_factory.mktemp("finished") / "a"
    (spec,) = plan(place, "adapter=head_only")
    assert attempt(spec, 0).status == "success"
    return place


def again(folder, monkeypatch, mirror) -> tuple[list[str], int]:
    sent: list[str] = []
    monkeypatch.setattr(tracking, "mirror", lambda record, *_: sent.append(record.run_id) or mirror())
    specs = plan(folder, "adapter=head_only", "tracking=wandb_offline")
    return sent, run_plan(Plan(specs=specs), Console(soft_wrap=True), parallel=False)


def refuse() -> None:
    raise OSError("no wandb today")


def test_finished_runs_are_sent_once(folder, monkeypatch, capsys):
    """They were ignored without a word; what fails is said, and tried again by the next command."""
    sent, status = again(folder, monkeypatch, refuse)
    (record,) = Store(folder / "runs").records()
    assert (sent, status) == ([record.run_id], 0)
    assert "wandb (offline): 0 of 1 finished runs sent" in (said := capsys.readouterr().out)
    assert f"not sent: {record.run_id}: OSError: no wandb today" in said
    assert again(folder, monkeypatch, lambda: None)[0] == [record.run_id]
    assert "wandb (offline): 1 of 1 finished runs sent" in capsys.readouterr().out
    (record,) = Store(folder / "runs").records()
    assert (record.tracking.mode, "tracking" in record.reasons) == ("offline", False)
    assert again(folder, monkeypatch, refuse) == ([], 0)
