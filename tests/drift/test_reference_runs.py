"""`lorta drift`: the committed reference_runs come out as recorded, and a change is found where it was made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorta.cli.drift import reference_folders
from lorta.cli.main import COMMANDS, main
from lorta.config.places import CONF
from lorta.drift import reference_runs
from lorta.drift.reference_runs import TOLERANCES, Drift, Look, changes_since, check
from lorta.planning.planner import make_plan
from lorta.records.store import RECORD_NAME, Store
from lorta.runner.execute import execute
from lorta.system.provenance import environment, hardware

COMMITTED = Path(__file__).parents[2] / "results" / "reference_runs"
PLACE = f"runtime.runs={COMMITTED}"


@pytest.fixture
def encoder(tmp_path):
    """A copy of the reference run of LoRA on RTE."""
    (spec,) = [
        spec
        for spec in make_plan(["experiment=reference_runs", "adapter=lora", "task=glue/rte", PLACE], False, CONF).specs
        if (COMMITTED / spec.run_id).is_dir()
    ]
    return Path(shutil.copytree(COMMITTED / spec.run_id, tmp_path / spec.run_id))


def test_the_recipe_is_what_is_committed():
    planned = {spec.run_id for spec in make_plan(["experiment=reference_runs", PLACE], True, CONF).specs}
    assert {folder.name for folder in reference_folders(COMMITTED)} == planned, "lorta drift --record makes them anew"


@pytest.mark.parametrize("folder", reference_folders(COMMITTED), ids=lambda folder: folder.name)
def test_a_committed_reference_run_is_clean_and_names_no_place(folder):
    assert Store(folder.parent).read(folder.name).code.git_dirty is False
    text = "".join(file.read_text() for file in folder.rglob("*.json*"))
    assert not any(place in text for place in ("/home/", "/tmp/", "/root/", str(Path.cwd())))


def test_a_reference_run_comes_out_as_recorded(encoder):
    found = check(encoder, CONF)
    assert found.kinds == (), [look for look in found.looks if look.drifted(not found.changes)]
    assert [look.kind for look in found.looks] == ["evaluation", "evaluation", "training", "training"]


def test_another_optimizer_is_training_drift_alone(encoder, monkeypatch):
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.Adamax)
    assert check(encoder, CONF).kinds == ("training",)


def test_another_stored_adapter_is_found_by_its_predictions(encoder):
    file = encoder / "adapter" / "adapter_model.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(file).items()}, file)
    drifted = [look.name for look in check(encoder, CONF).looks if look.drifted(exact=False)]
    assert drifted == ["predictions", "weights"]


def test_another_metric_is_found_in_the_stored_predictions(encoder):
    values = json.loads((encoder / RECORD_NAME).read_text())
    values["metrics"]["evaluation"]["accuracy"]["value"] += 0.01
    (encoder / RECORD_NAME).write_text(json.dumps(values))
    drifted = [look.name for look in check(encoder, CONF).looks if look.drifted(exact=False)]
    assert drifted == ["scores"]


def test_touched_predictions_are_refused(encoder):
    (encoder / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="must have sha256"):
        check(encoder, CONF)


def test_equality_is_expected_unless_something_changed():
    look = Look("training", "losses", TOLERANCES["losses"] / 2, "")
    assert look.drifted(exact=True)
    assert not look.drifted(exact=False)


def test_versions_and_processors_that_changed_are_named(encoder):
    record = Store(encoder.parent).read(encoder.name)
    record = replace(record, environment=environment(), hardware=hardware())
    assert changes_since(record) == ()
    older = replace(environment(), packages={**environment().packages, "torch": "1.0"})
    changed = changes_since(replace(record, environment=older, hardware=replace(hardware(), cpu="abacus")))
    assert changed == (f"torch 1.0 -> {environment().packages['torch']}", f"abacus -> {hardware().cpu}")


def test_variables_that_choose_other_kernels_are_a_change_and_threads_are_none(encoder):
    """Under MKL_CBWR=COMPATIBLE losses differ by 1e-7 on the same processor, which was called drift."""
    now = environment()

    def changes(**variables: str) -> tuple[str, ...]:
        then = replace(now, env_vars={**now.env_vars, **variables})
        return changes_since(replace(Store(encoder.parent).read(encoder.name), environment=then, hardware=hardware()))

    assert changes(OMP_NUM_THREADS="7") == ()
    assert changes(MKL_CBWR="SSE2") == (f"environment variable MKL_CBWR: SSE2 -> {now.env_vars.get('MKL_CBWR')}",)


def test_the_command_says_what_drifted_and_does_nothing_where_nothing_changed(encoder, capsys, monkeypatch):
    record = Store(encoder.parent).read(encoder.name)
    Store(encoder.parent).write(replace(record, environment=environment(), hardware=hardware()))
    assert main(["drift", "--reference-runs", str(encoder.parent), "--if-changed"]) == 0
    assert "nothing was run" in capsys.readouterr().out
    look = Look("training", "weights", 0.5, "trained again: weights")
    monkeypatch.setattr(reference_runs, "check", lambda folder, conf: Drift("a reference run", (), (look,)))
    assert main(["drift", "--reference-runs", str(encoder.parent)]) == 1
    assert "DRIFT training: trained again: weights" in capsys.readouterr().out


@pytest.mark.parametrize("example", COMMANDS["drift"].examples)
def test_the_examples_of_the_help_run(example, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.move(encoder, tmp_path / "results" / "reference_runs" / encoder.name)
    monkeypatch.setattr(reference_runs, "check", lambda folder, conf: Drift(folder.name, (), ()))
    monkeypatch.setattr(reference_runs, "changes_since", lambda record: ("torch 1.0 -> 2.0",))
    assert main(example.split()) == 0
    assert capsys.readouterr().out.startswith(f"{encoder.name}; nothing changed")


def test_a_place_without_reference_runs_is_a_sentence(tmp_path, capsys):
    assert main(["drift", "--reference-runs", str(tmp_path)]) == 2
    assert "lorta drift --record" in capsys.readouterr().err


def test_an_adapter_that_is_reloaded_in_other_shapes_is_no_drift(tmp_path):
    """AdaLoRA writes pruned ranks: its predictions come back 7e-7 off on the same machine."""
    words = ["adapter=adalora", "task=glue/rte", "trainer=smoke", "data.max_eval_samples=16", "trainer.max_steps=6"]
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache")]
    (spec,) = make_plan([*words, *places, "data.max_train_samples=64"], False, CONF).specs
    assert execute(spec).status == "success"
    checked = check(spec.folder, CONF)
    assert (checked.changes, checked.kinds) == ((), ())


def test_rounding_is_allowed_where_an_adapter_is_reloaded_and_nowhere_else():
    assert not Look("evaluation", "predictions", 4e-7, "").drifted(exact=True)
    assert Look("evaluation", "predictions", 1e-3, "").drifted(exact=True)
    assert all(Look("training", name, 4e-7, "").drifted(exact=True) for name in ("losses", "weights", "scores"))
