"""docs/how_to.md: its plans plan, its recipe is one, its Python code loads a trained adapter."""

import re
from pathlib import Path

import pytest
import torch

from lorta.cli.main import main
from lorta.config.places import CONF
from lorta.config.settings import TrackingSettings
from lorta.models.locate import find_model
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.runner.attempt import attempt
from lorta.runner.tracking import mirrored
from lorta.training.callbacks import stop_step
from tests.example_records import finished, sweep, unfinished
from tests.faults.sweeps import SETTINGS, plan

TEXT = (Path(__file__).parents[2] / "docs" / "how_to.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
PLANS = [line for line in LINES if line.startswith("lorta plan")]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in an empty folder with the recipe of the page."""
    (recipe,) = (block for kind, block in BLOCKS if kind == "yaml")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own_rates.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_of_the_page_is_left_out():
    assert len(PLANS) == 10 and {line.split()[1] for line in LINES} == {"plan", "rm"} and len(PYTHON) == 2


@pytest.mark.parametrize("line", PLANS)
def test_plans_plan(line, place, capsys):
    assert main(line.split()[1:]) == 0
    said = capsys.readouterr().out
    if "own_rates" in line:
        assert "4 runs" in said
    if "seed=0,1,2,3,4" in line:
        assert "10 runs" in said


def test_more_seeds_are_the_same_runs_and_new_ones():
    few, more = ([word for word in line.split()[2:] if word != "-m"] for line in PLANS if " seed=" in line)
    ids = [{spec.run_id for spec in make_plan(words, True, CONF).runs} for words in (few, more)]
    assert (len(ids[0]), len(ids[1])) == (6, 10) and ids[0] < ids[1]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("lorta rm")])
def test_runs_are_removed(line, place, monkeypatch):
    store = Store("runs")
    for record in (unfinished("failed", seed=9), finished("vera", seed=2), finished("lora")):
        store.write(record)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(line.split()[1:]) == 0
    assert len(store.records()) == 2 and finished("lora") in store.records()


def test_a_table_for_a_paper_is_where_the_page_says(place, monkeypatch):
    monkeypatch.setattr("lorta.reporting.report.plot", lambda *_: None)  # figures have tests of their own
    for record in sweep(3):
        Store("runs").write(record)
    (line,) = re.findall(r"`(lorta table [^`]*)`", TEXT)
    (name,) = re.findall(r"writes `([^`]*)`", TEXT)
    (label,) = re.findall(r"the label `([^`]*)`", TEXT)
    assert main(line.split()[1:]) == 0
    assert rf"\label{{{label}}}" in Path(name).read_text()
    assert Path(name).with_suffix(".notes.tex").is_file()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a trained run, and that of its backbone."""
    folder = tmp_path_factory.mktemp("how_to")
    (spec,) = plan(folder, "adapter=lorta", "rank=2")
    record = attempt(spec, 0)
    assert record is not None and record.status == "success"
    return spec.folder, find_model(spec.settings.model).location


def test_the_python_code_loads_a_trained_adapter(trained):
    folder, base = trained
    values: list[dict[str, object]] = []
    for code in PYTHON:
        names: dict[str, object] = {}
        exec(code.replace("runs/ID", str(folder)).replace("BASE", str(base)), names)
        values.append(names)
    plain, whole = values[0]["model"], values[1]["run"].model  # type: ignore[attr-defined]
    rows = torch.arange(5, 17).reshape(2, 6)
    with torch.no_grad():
        ours, theirs = (model.to("cpu")(input_ids=rows).logits for model in (whole, plain))  # type: ignore[attr-defined]
    assert torch.allclose(ours, theirs, atol=1e-5) and ours.abs().max() > 0


def test_a_run_that_stops_early_is_another_one_than_a_short_one(tmp_path):
    """The schedule covers all steps: after the same number of them, the learning rates differ."""
    assert "a run that\n  stops at epoch 4 of 10 is another run than one of 4 epochs" in TEXT
    words = [word for word in SETTINGS if not word.startswith("trainer.max_steps")]
    lengths = (("trainer.max_steps=20", "trainer.stop_after=0.5"), ("trainer.max_steps=10",))
    places = (f"runtime.runs={tmp_path}/runs", f"runtime.cache={tmp_path}/cache", "adapter=head_only")
    plans = [make_plan([*words, *places, *length], False, CONF) for length in lengths]
    (stopped,), (short,) = (plan.specs for plan in plans)
    assert stopped.run_id != short.run_id and stop_step(0.5, 20) == 10
    rates = []
    for spec in (stopped, short):
        record = attempt(spec, 0)
        assert record is not None and record.status == "success" and record.history_file is not None
        rates.append(Store(tmp_path / "runs").read_rows(record.run_id, record.history_file)[-1]["learning_rate"])
    assert rates[0] > 2 * rates[1]
    (search,) = [line.split()[2:] for line in PLANS if "trainer.selection=best" in line]
    trials = make_plan([*search, "tune=lr"], True, CONF).trials
    assert trials and all((trial.settings.trainer.stop_after or 1.0) < 1.0 for trial in trials)


def test_offline_runs_of_wandb_lie_where_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(Path("runs"))
    record = mirrored(finished(), store, TrackingSettings(mode="offline", project="mine"))
    assert record.tracking is not None, record.reasons
    (pattern,) = re.findall(r"`wandb sync (\S+)`", TEXT)
    (folder,) = Path().glob(pattern)
    assert list(folder.glob(f"run-{record.run_id}.wandb"))
