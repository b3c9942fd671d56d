"""Every adapter trains on a quantised decoder, or says why not."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lorta.geometry import Geometry, ModelContext
from lorta.models.backbone import Backbone
from lorta.peft_extension.registry import keep_4_bit_weights_readable
from tests.contract.backbones import ADAPTERS, adapter, backbone, batch, logits, train_steps

BITS = {
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "8bit": {"load_in_8bit": True},
}
CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=64,  # 64 weights are a block
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    initializer_range=0.1,
    pad_token_id=1,
)
GEOMETRY = Geometry.from_config(CONFIG.to_dict())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    LlamaForCausalLM(CONFIG).save_pretrained(folder)
    models = {}
    for bits, settings in BITS.items():
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**settings))
        keep_4_bit_weights_readable(model)
        models[bits] = model.eval()
    return models


@pytest.mark.parametrize("bits", ["4bit", pytest.param("8bit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_a_quantised_base_begins_as_promised_trains_and_can_be_switched_off(loaded, name, bits):
    method = adapter(name)
    if sentence := method.unsupported(ModelContext(GEOMETRY, "CAUSAL_LM", bits)):
        pytest.skip(sentence)
    base = Backbone(copy.deepcopy(loaded[bits]), backbone("llama_lm").tokenizer, GEOMETRY, rows=batch())
    expected = logits(base.model)
    model = method.attach(base, "CAUSAL_LM")
    disable = getattr(model, "disable_adapter", nullcontext)
    with disable():
        assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    if method.identity_at_start:
        assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert [name for name, gradient in train_steps(model, method).items() if gradient == 0.0] == []


ENCODER = RobertaConfig(
    vocab_size=64,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    initializer_range=0.1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    pad_token_id=1,
)


@pytest.fixture(scope="module", params=BITS)
def classifier(request, tmp_path_factory):
    """An encoder whose projections have biases, its head in floating point."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    RobertaForSequenceClassification(ENCODER).save_pretrained(folder)
    settings = BitsAndBytesConfig(**BITS[request.param], llm_int8_skip_modules=["classifier"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, quantization_config=settings)
    keep_4_bit_weights_readable(model)
    return request.param, model.eval()


@pytest.mark.parametrize("name", ["lora", "lorta", "loretta_rep", "ln_tuning", "head_only", "c3a", "gralora", "vera"])
def test_an_adapter_of_a_quantised_classifier_trains_or_says_why_not(classifier, name):
    bits, model = classifier
    geometry, method = Geometry.from_config(ENCODER.to_dict()), adapter(name)
    if sentence := method.unsupported(ModelContext(geometry, "SEQ_CLS", bits)):
        assert name in ("c3a", "gralora") and bits == "8bit", sentence
        return
    base = Backbone(copy.deepcopy(model), backbone("roberta").tokenizer, geometry, rows=batch())
    largest = train_steps(method.attach(base, "SEQ_CLS"), method)
    assert [name for name, gradient in largest.items() if gradient == 0.0] == []
    assert any("classifier" in name for name in largest)


@pytest.mark.parametrize("bits", BITS)
def test_what_trains_the_bases_own_weights_says_that_they_are_frozen(bits):
    for name in ("full", "dst", "pela", "bitfit", "sara"):
        assert len((adapter(name).unsupported(ModelContext(GEOMETRY, "CAUSAL_LM", bits)) or "").split()) > 4
