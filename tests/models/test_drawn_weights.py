"""Weights that a checkpoint lacks are trained and saved with the head, or the checkpoint is refused."""

import json
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForMaskedLM

from lorta.config.places import CONF
from lorta.embedded import tasks
from lorta.models.backbone import load_causal_lm, load_classifier
from lorta.models.locate import ModelFiles
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.training.metering import count_parameters, is_head
from tests.contract.backbones import adapter, batch, logits

POOLER = ("bert.pooler.dense.bias", "bert.pooler.dense.weight")
WEIGHTS = tasks.FINGERPRINTS.with_name("weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT from masked-language pre-training, which has no pooler."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tiny")
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=140, pad_token_id=1, **sizes)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def files_of(folder):
    return ModelFiles(str(folder), None, "fingerprint", json.loads((folder / "config.json").read_text()))


def loaded(folder, seed):
    torch.manual_seed(seed)
    base = load_classifier(files_of(folder), 2, "fp32")
    return replace(base, rows={"input_ids": batch()["input_ids"].tolist()})


@pytest.mark.parametrize("name", ["lora", "ln_tuning", "loretta_rep", "prompt_tuning", "head_only", "bitfit", "dst"])
def test_a_drawn_pooler_is_trained_and_read_back_under_any_seed(folder, name, tmp_path):
    method, base = adapter(name), loaded(folder, 0)
    assert base.drawn == POOLER
    model = method.attach(base, "SEQ_CLS")
    trained = {path: weight for path, weight in model.named_parameters() if weight.requires_grad}
    assert sum("pooler" in path and is_head(path, base.geometry.architecture) for path in trained) == 2
    planned, counted = method.parameters(base.geometry), count_parameters(model, base.geometry.architecture)
    assert (planned in (None, counted.adapter), counted.head) == (True, 32 * 32 + 32 + 2 * 32 + 2)
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(0.05 * torch.randn_like(weight))
    expected = logits(model)
    method.save(model, tmp_path)
    assert_close(logits(method.load(loaded(folder, 1), "SEQ_CLS", tmp_path)), expected)
    if name == "lora":  # a user has plain PEFT
        for seed in (2, 3):
            torch.manual_seed(seed)
            plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
            assert_close(logits(peft.PeftModel.from_pretrained(plain, str(tmp_path))), expected)


def test_a_record_lists_what_was_drawn(folder, tmp_path):
    words = ["task=glue/sst2", "trainer=smoke", "model=custom", f"model.path={folder}", "model.data=embedded"]
    words += [f"runtime.runs={tmp_path}", f"runtime.cache={tmp_path / 'cache'}"]
    (spec,) = make_plan(words, False, CONF).specs
    record = execute(spec)
    assert record.status == "success"
    assert record.model.drawn == POOLER
    assert record.params.tensors_moved == record.params.tensors


def without(folder, to, *names):
    """A copy of a checkpoint that lacks some of its weights."""
    for file in folder.glob("*.json"):
        (to / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not any(part in name for part in names)}
    assert len(kept) < len(weights)
    save_file(kept, to / "model.safetensors", {"format": "pt"})
    return files_of(to)


@pytest.mark.parametrize("part", ["layer.1.attention.self.query", "embeddings.word_embeddings", "layer.0.output.Layer"])
def test_an_incomplete_backbone_is_refused(folder, part, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint lacks \d of the model's weights .* use a complete checkpoint"):
        load_classifier(without(folder, tmp_path, part), 2, "fp32")


def test_a_language_model_without_a_weight_is_refused(tmp_path):
    assert load_causal_lm(files_of(WEIGHTS / "tiny_llama"), "fp32").drawn == ()
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights \(model.norm.weight\)"):
        load_causal_lm(without(WEIGHTS / "tiny_llama", tmp_path, "model.norm.weight"), "fp32")
