"""Every adapter trains on a quantised decoder, or says why not."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from lorta.geometry import Geometry
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
    if sentence := method.unsupported(GEOMETRY, "CAUSAL_LM", bits):
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


@pytest.mark.parametrize("bits", BITS)
def test_what_trains_the_bases_own_weights_says_that_they_are_frozen(bits):
    for name in ("full", "dst", "pela", "bitfit", "sara"):
        assert len((adapter(name).unsupported(GEOMETRY, "CAUSAL_LM", bits) or "").split()) > 4
