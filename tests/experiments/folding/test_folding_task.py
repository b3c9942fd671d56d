"""The folding task: what it refuses while planning, what a run leaves behind, and scores from rows alone."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.folding.metrics import coordinates
from experiments.folding.task import TRUNK
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.geometry import Geometry
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.runner.execute import execute
from tests.experiments.folding.esmfold import settings

SHARED = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[4] / "shared" / "data"))

pytestmark = pytest.mark.usefixtures("one_thread")


def plan(*overrides):
    return make_plan(["task=folding", *overrides], True, CONF)


def sentence(*overrides):
    (found,) = plan(*overrides).unsupported.values()
    return found


def test_a_quantised_trunk_is_refused_in_the_plan():
    refused = sentence("adapter=lora", "model=tiny_esmfold", "model.quantization=8bit")
    assert refused == "task=folding has no 8bit models: set model.quantization=null."


def test_a_plan_needs_no_torch():
    code = (
        "import sys; from lorta.config.places import CONF; from lorta.planning.planner import make_plan\n"
        "assert make_plan(['task=folding'], True, CONF).specs; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parent)


def test_the_task_brings_model_and_trainer_and_the_command_line_wins():
    (spec,) = plan().specs
    assert (spec.settings.model.name, spec.choices.get("trainer")) == ("tiny_esmfold", None)
    assert spec.settings.trainer.per_device_train_batch_size == settings().trainer.per_device_train_batch_size == 8
    (other,) = plan("trainer=smoke").specs
    assert other.settings.trainer.max_steps == 4


def test_a_method_that_trains_a_head_has_nothing_to_train():
    assert "has none" in sentence("adapter=head_only")
    assert plan("adapter=head_only", "task.trunk=trained").unsupported == {}


@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_are_refused(name):
    assert "virtual tokens" in sentence(f"adapter={name}")


@pytest.mark.parametrize(("name", "why"), [("pela", "only a part"), ("ln_tuning", "folding trunk")])
def test_methods_that_would_change_more_than_the_language_model_are_refused(name, why):
    assert why in sentence(f"adapter={name}")


def test_query_and_value_alone_are_no_modules_of_the_trunk():
    assert "take all of them or none" in sentence("adapter=lora", "task.adapted=trunk")


def test_a_model_without_a_trunk_is_refused_with_the_remedy():
    (problem,) = plan("model=tiny").problems
    assert all(part in problem for part in ("model=tiny", "roberta", "model=tiny_esmfold"))


def test_there_is_no_hub_dataset_and_the_sentence_says_what_there_is():
    problems = " ".join(plan("data.source=hub").problems)
    assert "data.root=FOLDER" in problems and "data.source=embedded" in problems


@pytest.mark.parametrize(
    "override",
    [
        "trunk=half",
        "adapted=head",
        "crop=1",
        "recycles=-1",
        "clamped_share=1.5",
        "validation_share=0.0",
        "identity=0.0",
    ],
)
def test_a_setting_out_of_range_is_named(override):
    assert f"task.{override}" in " ".join(plan(f"task.{override}").problems)


def test_a_trained_trunk_excludes_adapters_in_it():
    assert "task.trunk=trained" in " ".join(plan("task.trunk=trained", "task.adapted=trunk").problems)


def test_an_unknown_loss_is_named():
    assert "side_chain" in " ".join(plan("+task.losses.side_chain=1.0").problems)


def test_geometry_is_the_language_model_s_the_trunk_s_and_its_head():
    config = json.loads((CONF.parent / "lorta/embedded/weights/tiny_esmfold/config.json").read_text())
    task = build(settings().task)
    assert task.geometry(config) == Geometry.from_config(config)
    assert replace(task, adapted="trunk").geometry(config).locate("trunk.blocks.0.seq_attention.proj") == (
        0,
        ("q", "k", "v"),
    )
    assert replace(task, trunk="trained").geometry(config).architecture.head == TRUNK


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on six folds: its record, rows and folder."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [f"runtime.runs={folder}", f"runtime.cache={folder / 'cache'}"]
    (spec,) = plan("adapter=lora", "rank=2", "trainer.max_steps=2", "data.max_eval_samples=6", *paths).specs
    record = execute(spec)
    assert record.status == "success", record.failure
    store = Store(folder)
    return record, store.read_rows(record.run_id, record.predictions_file), store.folder(record.run_id)


def test_the_record_holds_the_frozen_model_s_score_beside_the_adapter_s(run):
    record, rows, _ = run
    scores = record.metrics["evaluation"]
    assert {"lddt_ca", "base_lddt_ca", "tm", "gdt_ts", "rmsd_ca", "loss_total", "loss_backbone_fape"} <= set(scores)
    assert all(row["base_ca"] != row["predicted_ca"] for row in rows)
    assert abs(scores["lddt_ca"].value - scores["base_lddt_ca"].value) < 0.2


def test_scores_follow_from_the_rows(run):
    record, rows, _ = run
    assert build(settings().task).score(rows) == record.metrics["evaluation"]


def test_perfect_rows_score_one_and_broken_ones_say_why(run):
    task, rows = build(settings().task), run[1]
    perfect = [{**row, "predicted_ca": row["reference_ca"], "base_ca": row["reference_ca"]} for row in rows]
    broken = [{**row, "predicted_ca": [[None] * 3 for _ in row["predicted_ca"]], "loss_total": None} for row in rows]
    assert [task.score(perfect)[name].value for name in ("lddt_ca", "base_lddt_ca")] == pytest.approx([1.0, 1.0])
    found = task.score(broken)
    assert all(found[name].value is None and found[name].reason for name in ("lddt_ca", "loss_total"))


def test_every_target_has_a_line_of_the_table_and_a_structure(run):
    _, rows, folder = run
    with (folder / "targets.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    assert {line["status"] for line in lines} == {"scored"}
    for row in rows:
        atoms = [
            line for line in (folder / "structures" / f"{row['name']}.pdb").read_text().splitlines() if " CA " in line
        ]
        written = [[float(line[start : start + 8]) for start in (30, 38, 46)] for line in atoms]
        assert coordinates(written) == pytest.approx(coordinates(row["predicted_ca"]), abs=1e-3)
        assert [float(line[60:66]) for line in atoms] == pytest.approx(row["plddt"], abs=0.01)


def test_a_refused_file_is_in_the_table_and_the_others_are_folded(tmp_path):
    if not (SHARED / "protein").is_dir():
        pytest.skip(f"no shared data at {SHARED}")
    structures = tmp_path / "data" / "protein"
    structures.mkdir(parents=True)
    for name in ("1ejg_A", "1bx8_A", "2b5t_A"):
        (structures / f"{name}.pdb").write_bytes((SHARED / "protein" / "structures" / f"{name}.pdb").read_bytes())
    (structures / "broken.pdb").write_text("no structure\n")
    local = [f"data.root={tmp_path / 'data'}", f"runtime.runs={tmp_path / 'runs'}", "task.recycles=0", "task.crop=16"]
    (spec,) = plan("adapter=lorta", "rank=2", "trainer.max_steps=1", "task.validation_share=0.4", *local).specs
    record = execute(spec)
    assert record.status == "success", record.failure
    table = (tmp_path / "runs" / record.run_id / "targets.csv").read_text()
    assert "broken.pdb,refused" in table
    assert table.count("scored") == record.metrics["evaluation"]["lddt_ca"].n >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), [("lora", 1), ("lora", 8), ("lorta", 1), ("lorta", 8)])
def test_every_adapter_folds_the_held_out_chains_better_than_the_frozen_model(name, rank, tmp_path):
    (spec,) = plan(f"adapter={name}", f"rank={rank}", f"runtime.runs={tmp_path}").specs
    record = execute(spec)
    assert record.status == "success", record.failure
    scores = record.metrics["evaluation"]
    assert scores["lddt_ca"].value > scores["base_lddt_ca"].value + 0.01
