"""Instruction tuning and preference optimisation through the pipeline, on the embedded decoder."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch.testing import assert_close

from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.training.context import DataSplits, TrainingContext

CAPS = ("data.max_train_samples=96", "data.max_eval_samples=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a command line once; return its record, predictions, history and folder."""
    folder, done = tmp_path_factory.mktemp("decoders"), {}

    def command(*overrides):
        if overrides not in done:
            paths = [
                f"runtime.runs={folder}/runs",
                f"runtime.cache={folder}/cache",
                f"runtime.results={folder}/results",
            ]
            given = {override.partition("=")[0] for override in overrides}
            caps = [cap for cap in CAPS if cap.partition("=")[0] not in given]
            (spec,) = make_plan([*caps, *paths, *overrides], False, CONF).specs
            record = execute(spec)
            assert record.status == "success", record.failure
            files = [spec.folder / name for name in ("predictions.jsonl", "history.jsonl")]
            rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
            done[overrides] = (record, *rows, Path(spec.folder))
        return done[overrides]

    return command


def values(record):
    return {name: score.value for name, score in record.metrics["evaluation"].items()}


def test_instruction_tuning_lowers_the_held_out_loss_below_the_backbones(run):
    record, *_ = run("adapter=lora", "rank=4", "task=instruct", "data.max_train_samples=640")
    found = values(record)
    assert found["loss"] < found["base_loss"] - 0.05
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert (record.task.higher_is_better, record.task.metric_primary) == (False, "loss")


@pytest.mark.parametrize("task", ["instruct", "dpo"])
def test_scores_come_from_the_predictions_file_alone(run, task):
    record, predictions, *_ = run("adapter=lora", "rank=4", f"task={task}")
    (spec,) = make_plan(["adapter=lora", f"task={task}"], False, CONF).specs
    again = build(spec.settings.task).score(predictions)
    assert {name: score.value for name, score in again.items()} == values(record)


def test_some_held_out_instructions_are_answered_in_a_side_file(run):
    *_, folder = run("adapter=lora", "rank=4", "task=instruct")
    rows = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["prompt"].endswith("### Response:") and row["reference"] for row in rows)


def test_the_best_epoch_is_the_one_with_the_lowest_loss(run):
    rates = ("trainer.learning_rate=0.3", "trainer.num_train_epochs=2.0", "trainer.lr_scheduler_type=constant")
    record, *_ = run("adapter=lora", "rank=4", "task=instruct", "trainer.selection=best", *rates)
    last, *_ = run("adapter=lora", "rank=4", "task=instruct", "trainer.selection=last", *rates)
    assert values(record)["loss"] <= values(last)["loss"]


def test_loss_on_everything_teaches_the_prompt_too(run):
    _, _, on_answer, _ = run("adapter=lora", "rank=4", "task=instruct")
    record, _, on_all, _ = run("adapter=lora", "rank=4", "task=instruct", "task.loss_on=all")
    assert record.config["task"]["loss_on"] == "all"
    assert on_all[0]["loss"] != pytest.approx(on_answer[0]["loss"], abs=1e-3)


def test_checkpointing_changes_what_is_kept_and_not_what_is_learnt(run):
    for task in ("instruct", "dpo"):
        plain = run("adapter=lorta", "rank=2", f"task={task}")
        saving = run("adapter=lorta", "rank=2", f"task={task}", "model.gradient_checkpointing=true")
        assert plain[0].run_id != saving[0].run_id
        losses = [[row["loss"] for row in found[2]] for found in (plain, saving)]
        assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
        assert_close(values(saving[0]), values(plain[0]), rtol=1e-4, atol=1e-5)


def test_dpo_begins_at_log_2_and_prefers_held_out_choices_at_the_end(run):
    record, predictions, history, _ = run("adapter=lora", "rank=4", "task=dpo", "trainer.num_train_epochs=3.0")
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    found = values(record)
    assert found["reward_accuracy"] > 0.5
    assert found["loss"] < math.log(2)
    assert found["reward_margin"] == pytest.approx(found["reward_chosen"] - found["reward_rejected"])
    assert set(predictions[0]) >= {"chosen_log_probability", "rejected_log_probability", "base_chosen_log_probability"}


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_lorta_learns_preferences_on_a_quantised_base(run, bits):
    quantised = ("adapter=lorta", "rank=4", "task=dpo", f"model.quantization={bits}")
    record, _, history, folder = run(*quantised)
    assert (record.model.quantization, record.params.adapter) == (bits, 4 * (96 + 24 + 4 + 4 + 4))
    assert record.model.parameters_total == record.params.total - record.params.adapter
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[-1]["grad_norm"] > 0
    assert values(record)["loss"] != pytest.approx(math.log(2), abs=1e-4)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("task", "rank", "bits"), [("instruct", 2, "null"), ("dpo", 2, "null"), ("dpo", 4, "4bit")])
def test_a_saved_adapter_gives_the_predictions_of_its_record_again(run, task, rank, bits, tmp_path):
    from lorta.models.locate import find_model

    overrides = ("adapter=lorta", f"rank={rank}", f"task={task}")
    overrides += () if bits == "null" else (f"model.quantization={bits}",)
    record, predictions, _, folder = run(*overrides)
    (spec,) = make_plan([*CAPS, *overrides], False, CONF).specs
    settings, found = spec.settings, build(spec.settings.task)
    backbone = found.load_backbone(find_model(settings.model), settings.model.dtype)
    plan = found.plan_data(settings.data, "embedded")
    data: DataSplits = found.load_data(plan, settings.data, backbone.tokenizer, tmp_path)
    context = TrainingContext(backbone, data, settings.trainer, folder=tmp_path)
    context = replace(context, base_predictions=found.predict_base(context))
    model = build(settings.adapter).load(backbone, "CAUSAL_LM", folder / "adapter")
    again = found.predict(model, context)
    assert record.status == "success"
    for before, after in zip(predictions, again, strict=True):
        assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task=instruct", "model=tiny"], "needs a decoder, roberta is none"),
        (["task=instruct", "adapter=head_only"], "trains a classification head, and this task has none"),
        (["task=dpo", "adapter=pela"], "changes the backbone for good, and task=dpo compares with it"),
        (["task=dpo", "adapter=full", "model.quantization=4bit"], "those of 4bit bases are frozen"),
        (
            ["task=instruct", "adapter=prefix_tuning", "model.gradient_checkpointing=true"],
            "its keys and values come as a cache",
        ),
    ],
)
def test_pairs_that_cannot_work_are_planned_with_a_sentence(overrides, sentence):
    plan = make_plan(overrides, False, CONF)
    assert plan.problems == ()
    assert [sentence in found for found in plan.unsupported.values()] == [True]


def test_rows_that_leave_no_room_for_an_answer_are_counted_out(run):
    record, *_ = run("adapter=lora", "rank=4", "task=instruct")
    short, *_ = run("adapter=lora", "rank=4", "task=instruct", "data.max_length=54", "task.generations=0")
    assert 0 < short.task.splits["train"].rows < record.task.splits["train"].rows == 96


def test_scores_without_a_finite_value_say_why():
    tasks = [make_plan([f"task={name}"], False, CONF).specs[0].settings.task for name in ("instruct", "dpo")]
    instruct, dpo = (build(task) for task in tasks)
    row = {"log_probability": -math.inf, "tokens": 2, "correct": 0, "base_log_probability": None, "base_correct": None}
    scores = instruct.score([row])
    assert {name for name, score in scores.items() if score.value is not None} == {"token_accuracy"}
    assert all(score.reason for score in scores.values() if score.value is None)
    pair = {f"{base}{answer}_log_probability": math.nan for base in ("", "base_") for answer in ("chosen", "rejected")}
    assert all(
        score.reason == "no finite value" for score in dpo.score([pair | {"beta": 0.1}]).values() if score.value is None
    )
    assert dpo.score([pair | {"beta": 0.1}])["loss"].value is None


def test_the_loss_of_a_pair_is_that_of_the_paper():
    (spec,) = make_plan(["task=dpo"], False, CONF).specs
    dpo = dataclasses.replace(build(spec.settings.task), beta=0.1)
    row = {"chosen_log_probability": -3.0, "rejected_log_probability": -9.0, "beta": 0.1}
    row |= {"base_chosen_log_probability": -5.0, "base_rejected_log_probability": -5.0}
    found = dpo.score([row, row | {"rejected_log_probability": -1.0}])
    margins = [0.1 * ((-3 + 5) - (-9 + 5)), 0.1 * ((-3 + 5) - (-1 + 5))]
    assert found["loss"].value == pytest.approx(sum(-math.log(1 / (1 + math.exp(-m))) for m in margins) / 2)
    assert found["reward_accuracy"].value == 0.5
