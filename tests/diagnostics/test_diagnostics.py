"""Forgetting and merging: measured beside a run, right, and without a trace in its numbers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel

from lorta.config.places import CONF
from lorta.diagnostics import merging
from lorta.diagnostics.corpus import BaseText, read_base_text
from lorta.diagnostics.forgetting import losses_through_head, objective_of, text_loss
from lorta.diagnostics.runner import NAMES, OF_A_TRIAL, SWITCHED_OFF, DiagnosticRunner
from lorta.geometry import Geometry
from lorta.models.backbone import load_classifier
from lorta.models.locate import find_model
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.training.metering import Stopwatch
from tests.contract.backbones import adapter, attach, backbone, batch, train_steps

WEIGHTS = CONF.parent / "lorta" / "embedded" / "weights"
EMBEDDED = [("tiny", "masked"), ("tiny_llama", "causal")]
LENGTH = ["trainer=smoke", "trainer.max_steps=4", "data.max_train_samples=32", "data.max_eval_samples=16"]
ENCODER, DECODER = ["task=glue/cola"], ["task=instruct", "task.generations=0"]


def specs(folder: Path, *words: str):
    places = [f"runtime.{name}={folder / name}" for name in ("runs", "cache", "results")]
    plan = make_plan([*places, *LENGTH, *words], True, CONF)
    assert not plan.problems, plan.problems
    return plan.specs


def settings(*words: str):
    return specs(Path("nowhere"), *words)[0].settings


def run(folder: Path, *words: str, checks: bool = True):
    (spec,) = specs(folder, f"runtime.checks={str(checks).lower()}", *words)
    record = execute(spec)
    assert record.status == "success", record.failure
    return record, spec.folder


def embedded(model: str, objective: Any) -> tuple[Any, BaseText]:
    kind: Any = AutoModelForMaskedLM if objective == "masked" else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / model)
    return kind.from_pretrained(WEIGHTS / model), read_base_text(settings(f"model={model}"), tokenizer, objective)


@pytest.mark.parametrize(("model", "objective"), EMBEDDED)
def test_an_embedded_backbone_has_about_the_loss_that_its_pretraining_ended_with(model, objective):
    card = json.loads((WEIGHTS / model / "card.json").read_text())
    assert text_loss(*embedded(model, objective)) == pytest.approx(card["loss"], abs=0.15)


@pytest.mark.parametrize(("model", "objective"), EMBEDDED)
def test_text_loss_is_what_transformers_computes_from_labels(model, objective):
    language_model, text = embedded(model, objective)
    labels = text.targets if objective == "masked" else text.ids.masked_fill(text.attended == 0, -100)
    with torch.no_grad():
        expected = language_model(input_ids=text.ids, attention_mask=text.attended, labels=labels).loss.item()
    assert text_loss(language_model, text) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["task=classification", "runtime.checks=true", "data.holdout=0.1"], {}),
        (["task=glue/rte", "runtime.checks=true", "data.holdout=8"], dict.fromkeys(NAMES, OF_A_TRIAL)),
        (["task=glue/rte", "runtime.checks=false"], dict.fromkeys(NAMES, SWITCHED_OFF)),
    ],
)
def test_a_trial_of_a_learning_rate_is_not_checked(tmp_path, words, why):
    (tmp_path / "train.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    own = settings(*words, *([f"data.root={tmp_path}"] if not why else []))
    runner = DiagnosticRunner(own, "SEQ_CLS", Stopwatch())
    assert (runner.reasons, bool(runner.diagnostics)) == (why, not why)


@pytest.mark.parametrize("task", [ENCODER, DECODER], ids=["encoder", "decoder"])
def test_switching_the_checks_off_moves_nothing_of_a_run(tmp_path, task):
    (on, folder), (off, plain) = (
        run(tmp_path / str(checks), *task, "adapter=lorta", checks=checks) for checks in (True, False)
    )
    assert on.run_id == off.run_id and on.metrics == off.metrics and on.train_loss_final == off.train_loss_final
    assert on.predictions_file == off.predictions_file and on.predictions_file is not None
    for file in (plain / "adapter").iterdir():
        assert (folder / "adapter" / file.name).read_bytes() == file.read_bytes(), file.name
    assert on.forgetting is not None and on.merging is not None
    assert on.time is not None and on.time.check_s is not None and on.time.check_s > 0.0


def test_checks_that_are_off_take_no_time_and_say_so(tmp_path):
    record, _ = run(tmp_path, *ENCODER, "adapter=lora", checks=False)
    assert (record.forgetting, record.merging, record.time and record.time.check_s) == (None, None, None)
    assert record.reasons["forgetting"] == record.reasons["merging"] == "runtime.checks=false"


def test_an_encoder_whose_head_alone_was_trained_forgets_nothing(tmp_path):
    record, _ = run(tmp_path, *ENCODER, "adapter=head_only")
    assert record.forgetting is not None
    assert record.forgetting.loss_after == record.forgetting.loss_before


def test_diagnostics_of_a_bf16_run_are_those_of_its_float32_weights(tmp_path):
    """Trainer leaves a `forward` with autocast behind, whose rounding was taken for an error of merging (0.02)."""
    record, _ = run(tmp_path, *DECODER, "adapter=lorta", "trainer.precision=bf16", "trainer.learning_rate=0.01")
    assert record.merging is not None and record.merging.largest_difference < 1e-5


@pytest.mark.parametrize("task", [ENCODER, DECODER], ids=["encoder", "decoder"])
def test_training_everything_at_a_high_rate_forgets(tmp_path, task):
    record, _ = run(tmp_path, *task, "adapter=full", "trainer.learning_rate=0.01")
    assert record.forgetting is not None
    assert record.forgetting.loss_after > record.forgetting.loss_before + 0.1
    assert "own weights" in record.reasons["merging"]


def test_virtual_tokens_are_measured_in_a_language_model_and_are_not_merged(tmp_path):
    record, _ = run(tmp_path, *DECODER, "adapter=prompt_tuning")
    assert record.forgetting is not None and record.forgetting.tokens == 16 * 127
    assert record.forgetting.loss_after != record.forgetting.loss_before
    assert "virtual tokens" in record.reasons["merging"]


def test_a_check_that_breaks_costs_its_columns_and_not_the_run(tmp_path, monkeypatch):
    def broken(*arguments):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(merging, "check_merging", broken)
    record, _ = run(tmp_path, *ENCODER, "adapter=lora")
    assert record.merging is None and record.forgetting is not None
    assert record.reasons["merging"] == "OutOfMemoryError: no memory left"


def test_merge_check_sees_an_adapter_that_merging_loses(monkeypatch):
    model = attach(adapter("lora"), "roberta")
    train_steps(model, adapter("lora"))
    monkeypatch.setattr(model.base_model, "merge_adapter", model.base_model.disable_adapter_layers)
    found = merging.check_merging(model, batch()["input_ids"].tolist(), padding=1)
    assert found.largest_difference is not None and found.largest_difference > 1e-2


def test_padding_of_the_fixed_rows_is_not_compared():
    model = attach(adapter("lora"), "llama_lm")
    train_steps(model, adapter("lora"))
    found = merging.check_merging(model, [[5, 6, 7], [8, 9, 10, 11, 12]], padding=1)
    assert found.rows == 2 and found.largest_difference is not None and found.largest_difference < 1e-5


def test_fixed_rows_are_the_first_ones_of_a_task_or_refused():
    rows = [{"prompt_ids": list(range(100))}] * 20
    assert merging.fixed_rows(rows) == [list(range(64))] * 8
    with pytest.raises(ValueError, match="no token ids"):
        merging.fixed_rows([{"coordinates": 1}])
    with pytest.raises(ValueError, match="no token ids"):
        merging.fixed_rows([torch.ones(3)])  # a structure is no mapping of columns


def test_a_checkpoint_without_a_language_head_says_so(tmp_path):
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(WEIGHTS / "tiny").save_pretrained(tmp_path)
    files = find_model(settings("model=custom", f"model.path={tmp_path}", "data.source=embedded").model)
    without = load_classifier(files, 2, "fp32")
    ids = torch.ones((1, 3), dtype=torch.long)
    with pytest.raises(ValueError, match="no language head"):
        losses_through_head(without.model, without, BaseText("x", "masked", ids, ids, ids))


def test_another_backbone_reads_its_text_below_data_root(tmp_path):
    plain = settings("model=tiny_llama")
    model = plain.model.model_copy(update={"data": "hub"})
    found = plain.model_copy(update={"model": model, "data": plain.data.model_copy(update={"root": str(tmp_path)})})
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tiny")
    with pytest.raises(ValueError, match=r"text/validation\.jsonl"):
        read_base_text(found, tokenizer, "causal")
    file = tmp_path / "text" / "validation.jsonl"
    file.parent.mkdir()
    file.write_text('{"text": "the doghouse"}\n{"text": "the doghouse is far from the tree"}\n')
    causal, masked = (read_base_text(found, tokenizer, objective) for objective in ("causal", "masked"))
    lengths = causal.attended.sum(dim=1).tolist()
    assert causal.tokens == sum(lengths) - 2 and lengths[0] < lengths[1]
    hidden = masked.targets != -100
    assert (masked.ids[hidden] == tokenizer.mask_token_id).all() and (
        masked.targets[hidden] == causal.ids[hidden]
    ).all()
    assert (masked.ids[~hidden] == causal.ids[~hidden]).all()


def test_a_decoder_without_such_text_reads_another_tasks_held_out_answers(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tiny")
    rows = {"instruct/alpaca": {"output": "the doghouse"}, "preference/alpaca_eval": {"chosen": "the tree is far"}}
    for name, row in rows.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "validation.jsonl").write_text(f"{json.dumps(row)}\n" * 40)
    names, sizes = {}, set()
    for task in ("instruct", "dpo", "gsm8k"):
        plain = settings("model=tiny_llama", f"task={task}")
        model = plain.model.model_copy(update={"data": "hub"})
        data = plain.data.model_copy(update={"root": str(tmp_path)})
        text = read_base_text(plain.model_copy(update={"model": model, "data": data}), tokenizer, "causal")
        names[task] = text.name
        sizes.add(len(text.ids))
    alpaca, pairs = (f"{name}/validation.jsonl" for name in rows)
    assert names == {"instruct": pairs, "dpo": alpaca, "gsm8k": alpaca}
    assert sizes == {32}


def test_text_of_a_file_without_its_column_is_refused(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "validation.jsonl").write_text('{"sentence": "x"}\n')
    plain = settings("model=tiny")
    model, data = plain.model.model_copy(update={"data": "hub"}), plain.data.model_copy(update={"root": str(tmp_path)})
    with pytest.raises(ValueError, match="every line needs"):
        read_base_text(plain.model_copy(update={"model": model, "data": data}), None, "masked")


@pytest.mark.parametrize(
    ("architecture", "task_type", "objective"),
    [("roberta", "SEQ_CLS", "masked"), ("llama", "SEQ_CLS", "causal"), ("llama_lm", "CAUSAL_LM", "causal")],
)
def test_the_objective_is_the_one_of_the_backbones_pretraining(architecture, task_type, objective):
    assert objective_of(backbone(architecture), task_type) == objective


def test_a_structure_model_has_no_loss_of_text():
    geometry = Geometry.from_config({"model_type": "esm", **vars(BertConfig(hidden_size=8, num_attention_heads=2))})
    folding: Any = SimpleNamespace(geometry=geometry)
    with pytest.raises(ValueError, match="no loss of text is defined"):
        objective_of(folding, "FEATURE_EXTRACTION")
