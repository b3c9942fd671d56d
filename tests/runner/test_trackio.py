"""`tracking=trackio`: a record and its history as a run of Trackio."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import pytest

from lorta.config.settings import TrackingSettings
from lorta.records.store import Store
from lorta.runner.tracking import mirrored
from tests.example_records import finished

TRACKIO = TrackingSettings(mode="trackio", project="lorta")
ABSENT = "trackio is not installed: pip install 'lorta[trackio]'"
PAGE = Path(__file__).parents[2] / "docs" / "how_to.md"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def record(store):
    """Return a finished run with two steps of history."""
    run = finished()
    rows = [{"step": 5, "loss": 0.9}, {"step": 10, "loss": 0.6}]
    return replace(run, history_file=store.write_rows(run.run_id, "history.jsonl", rows))


class Calls(list[tuple[str, object]]):
    """What a module that stands in for trackio was asked to do."""

    def module(self):
        return SimpleNamespace(
            init=lambda **options: self.append(("init", options)),
            log=lambda values, step: self.append(("log", (step, values))),
            finish=lambda: self.append(("finish", None)),
        )


def test_a_run_is_sent_with_its_losses_scores_and_sizes(store, record, monkeypatch):
    calls = Calls()
    monkeypatch.setitem(sys.modules, "trackio", calls.module())
    sent = mirrored(record, store, TRACKIO)
    assert [name for name, _ in calls] == ["init", "log", "log", "log", "finish"]
    options, first, _, last = (values for _, values in calls[:4])
    assert options["name"] == f"lora-r4-glue-rte-seed0-{record.run_id}" and options["project"] == "lorta"  # type: ignore[index]
    assert first == (5, {"train/loss": 0.9})
    step, numbers = last  # type: ignore[misc]
    assert step == 10 and numbers["validation/accuracy"] == 0.8 and numbers["params/adapter"] == 1000
    assert sent.tracking is not None and (sent.tracking.mode, sent.tracking.wandb_id) == ("trackio", None)
    assert store.read(record.run_id) == sent


def test_a_missing_package_costs_a_line_of_the_record_and_names_the_remedy(store, record, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    sent = mirrored(record, store, TRACKIO)
    assert sent.tracking is None and "pip install 'lorta[trackio]'" in sent.reasons["tracking"]


def test_trackio_itself_holds_what_the_record_says(store, record, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", f"{tmp_path}/trackio")
    trackio = pytest.importorskip("trackio", reason=ABSENT)
    sent = mirrored(record, store, TRACKIO)
    assert sent.tracking is not None, sent.reasons
    (run,) = list(trackio.Api().runs("lorta"))
    assert run.name == f"lora-r4-glue-rte-seed0-{record.run_id}"
    assert run.config["seed"] == 0 and run.config["adapter"]["name"] == "lora"


def test_the_command_of_the_page_shows_the_run(store, record, tmp_path, monkeypatch):
    """`trackio show` waits for a browser: here its server is asked instead."""
    monkeypatch.setenv("TRACKIO_DIR", f"{tmp_path}/trackio")
    trackio, command_line = (pytest.importorskip(name, reason=ABSENT) for name in ("trackio", "trackio.cli"))
    mirrored(record, store, TRACKIO)
    (command,) = re.findall(r"`(trackio show [^`]*)`", PAGE.read_text())
    asked: list[str] = []
    monkeypatch.setattr(command_line, "show", lambda project, **_: asked.append(project))
    monkeypatch.setattr(sys, "argv", command.split())
    command_line.main()
    assert asked == [TRACKIO.project]
    server, url, *_ = trackio.show(*asked, open_browser=False, block_thread=False, share=False)
    try:
        body = json.dumps({"project": asked[0]}).encode()
        request = Request(f"{url.rstrip('/')}/api/get_runs_for_project", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=20) as answer:
            assert f"lora-r4-glue-rte-seed0-{record.run_id}" in answer.read().decode()
    finally:
        server.close()
