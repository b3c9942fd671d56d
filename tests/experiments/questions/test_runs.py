"""Whole runs of question tasks on a small Llama: record, predictions, scores made again, the model reloaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.questions.second_opinion import own_questions
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.runner.reload import reload_run
from tests.experiments.letters import letter_tokenizer, small_llama

TASKS = {
    "gsm8k": ["task.generation.max_new_tokens=8", "task.score_backbone=true"],
    "commonsense/boolq": ["task.score_backbone=true"],
    "commonsense/arc_easy": ["task.scoring=option", "task.generation.max_new_tokens=8", "task.loss_on=all"],
    "superglue_qa/copa": [],
    "superglue_qa/record": [],
    "superglue_qa/squad": ["task.generation.max_new_tokens=8"],
    "superglue_qa/drop": ["task.generation.max_new_tokens=8"],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    small_llama(tie_word_embeddings=False).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """Run a task once and return the folder of its run."""
    runs, done = tmp_path_factory.mktemp("runs"), {}

    def once(name: str) -> Path:
        if name not in done:
            words = ["model=custom", f"model.path={small}", "model.data=embedded", "adapter=lora", "rank=2"]
            words += ["data.max_train_samples=8", "data.max_eval_samples=6", "trainer.max_steps=2"]
            words += ["trainer.per_device_train_batch_size=4", f"runtime.runs={runs}", f"runtime.cache={runs}/cache"]
            plan = make_plan([f"task={name}", *words, *TASKS[name]], False, CONF)
            assert plan.problems == () and not plan.unsupported
            record = execute(plan.specs[0])
            assert record.status == "success", (record.failure, record.reasons)
            done[name] = plan.specs[0].folder
        return done[name]

    return once


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_made_again_from_the_predictions_alone(run, name):
    folder = run(name)
    record = json.loads((folder / "record.json").read_text())
    again = build(record["config"]["task"]).score(rows(folder))
    assert {key: score.value for key, score in again.items()} == {
        key: score["value"] for key, score in record["metrics"]["evaluation"].items()
    }
    assert all(score.n == 6 for score in again.values())


@pytest.mark.parametrize("name", TASKS)
def test_the_record_says_what_was_trained_and_how_answers_were_written(run, name):
    record = json.loads((run(name) / "record.json").read_text())
    assert record["task"]["splits"]["train"]["rows"] == 8
    assert record["params"]["adapter"] > 0 and record["params"]["head"] == 0
    assert record["config"]["task"]["generation"]["padding_side"] == "left"
    assert record["config"]["data"]["max_length"] == record["config"]["task"]["max_length"]


@pytest.mark.parametrize(("name", "made"), [("gsm8k", "text"), ("commonsense/boolq", "scores")])
def test_the_backbones_own_answers_stand_beside_and_are_scored_alike(run, name, made):
    folder = run(name)
    record = json.loads((folder / "record.json").read_text())
    scores = record["metrics"]["evaluation"]
    assert scores.keys() == {f"{prefix}{key}" for key in scores if "base_" not in key for prefix in ("", "base_")}
    before = [{**row, **row["base"]} for row in rows(folder)]
    assert build(record["config"]["task"]).score(before)["base_accuracy"].value == scores["base_accuracy"]["value"]
    assert all(row["base"].keys() <= row.keys() and "idx" not in row["base"] for row in rows(folder))
    assert any(row[made] != row["base"][made] for row in rows(folder))


def test_the_backbone_is_not_asked_unless_a_task_says_so(run):
    assert all("base" not in row for row in rows(run("superglue_qa/copa")))


def test_a_reloaded_run_predicts_what_the_run_predicted(run, small):
    folder = run("commonsense/boolq")
    again = reload_run(folder, CONF, [f"model.path={small}"])
    plan = again.task.plan_data(again.settings.data, "embedded")
    data = again.task.load_data(plan, again.settings.data, again.backbone.tokenizer, folder)
    predictions = again.task.predict(again.model, again.context(data, folder))
    for kept, made in zip(rows(folder), predictions, strict=True):
        assert made["scores"] == pytest.approx(kept["scores"], abs=1e-5)


def test_an_untouched_model_is_the_backbone(run, small):
    folder, ids = run("commonsense/boolq"), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        base, adapted = (
            reload_run(folder, CONF, [f"model.path={small}"], untouched).model(ids).logits
            for untouched in (True, False)
        )
        expected = small_llama(tie_word_embeddings=False)(ids).logits
    assert torch.allclose(base, expected)
    assert not torch.allclose(adapted, expected, atol=1e-6)


def test_reloading_refuses_what_is_no_finished_run_or_another_model(run, tmp_path):
    with pytest.raises(ValueError, match=r"not the folder of a successful run \(no record\)"):
        reload_run(tmp_path, CONF)
    other = tmp_path / "other"
    small_llama(hidden_size=16).save_pretrained(other)
    letter_tokenizer().save_pretrained(other)
    with pytest.raises(ValueError, match="the model is no longer what the run had"):
        reload_run(run("commonsense/boolq"), CONF, [f"model.path={other}"])
    with pytest.raises(ValueError, match="the task is no longer what the run had"):
        reload_run(run("commonsense/boolq"), CONF, [f"model.path={other}", "task.normalise=sum"])


@pytest.mark.parametrize("name", ["superglue_qa/record", "gsm8k"])
def test_lm_eval_agrees_on_the_same_rows(run, small, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = own_questions(reload_run(run(name), CONF, [f"model.path={small}"]), tmp_path / "opinion")
    theirs = found["lm_eval"].get("acc,none", found["lm_eval"].get("exact_match,marked"))
    assert theirs == pytest.approx(found["ours"]["accuracy"])
    assert max(found["difference"].values()) < 1e-3


def test_what_lm_eval_cannot_score_is_a_sentence(run, small, tmp_path):
    with pytest.raises(ValueError, match="lm_eval has no metric for it"):
        own_questions(reload_run(run("superglue_qa/squad"), CONF, [f"model.path={small}"]), tmp_path)


def test_rows_that_changed_since_the_run_get_no_second_opinion(run, small, tmp_path):
    again = reload_run(run("commonsense/boolq"), CONF, [f"model.path={small}"])
    prints = {**again.record.config["fingerprints"], "evaluation": "another"}
    again.record = replace(again.record, config={**again.record.config, "fingerprints": prints})
    with pytest.raises(ValueError, match="no longer those of run"):
        own_questions(again, tmp_path)
