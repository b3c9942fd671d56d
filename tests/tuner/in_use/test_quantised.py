"""8-bit and 4-bit bases of bitsandbytes, on the CPU. The released code trains plain LoRA there (dpo/, 4-bit)."""

import bitsandbytes
import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lorta.tuner import LortaConfig, LortaLinear

SHAPE = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 64, "initializer_range": 0.1}  # 64 weights are a block
BITS = {
    "8 bit": {"load_in_8bit": True},
    "4 bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}
RELATIVE = {"8 bit": 0.02, "4 bit": 0.2}  # what rounding may do to a matrix, in Frobenius norm: nf4 takes about 0.1


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tmp_path_factory.mktemp("base")


@pytest.fixture
def quantised(backbone, saved):
    def build(bits):
        if not any(saved.iterdir()):
            backbone("llama_lm", **SHAPE).save_pretrained(saved)
        return AutoModelForCausalLM.from_pretrained(saved, quantization_config=BitsAndBytesConfig(**BITS[bits])).eval()

    return build


def attach(model, **settings):
    return get_peft_model(model, LortaConfig(**({"r": 3, "alpha": 0.3, "task_type": "CAUSAL_LM"} | settings)))


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, LortaLinear)]


def gradients(model, tokens):
    model.train()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


def relative(found, expected):
    return (torch.linalg.norm(found.float() - expected.float()) / torch.linalg.norm(expected.float())).item()


@pytest.mark.parametrize("bits", BITS)
def test_the_adapter_is_lorta_on_quantised_layers_and_no_plain_lora(quantised, bits):
    model = attach(quantised(bits))
    kind = {"8 bit": bitsandbytes.nn.Linear8bitLt, "4 bit": bitsandbytes.nn.Linear4bit}[bits]
    assert len(layers_of(model)) == 8 and all(isinstance(layer.base_layer, kind) for layer in layers_of(model))
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[-2] for name in trainable} == {
        f"lorta_{mode}" for mode in ("hidden", "head_dim", "heads", "layers", "matrices")
    }
    assert sum(value.numel() for value in trainable.values()) == 3 * (64 + 16 + 4 + 2 + 4)
    assert {value.dtype for value in trainable.values()} == {torch.float32}


@pytest.mark.parametrize("bits", BITS)
def test_every_factor_moves_and_the_quantised_weights_do_not(quantised, tokens, bits):
    model = attach(quantised(bits)).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=0.1)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) != ("lorta_" in name), name


@pytest.mark.parametrize("bits", BITS)
def test_the_layer_adds_what_get_delta_weight_says(quantised, randomise, bits):
    model = randomise(attach(quantised(bits)))
    for layer in layers_of(model):
        x = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            assert_close(layer(x) - layer.base_layer(x), x @ layer.get_delta_weight("default").T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_a_reloaded_adapter_gives_the_same_logits(quantised, randomise, tokens, tmp_path, bits):
    model = randomise(attach(quantised(bits)))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(quantised(bits), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("bits", BITS)
def test_merging_after_an_evaluation_stores_the_sum_up_to_its_rounding(quantised, randomise, tokens, bits):
    model = randomise(attach(quantised(bits), alpha=2.0))
    before = [layer.get_base_weight().float() for layer in layers_of(model)]
    wanted = [
        weight + layer.get_delta_weight("default") for weight, layer in zip(before, layers_of(model), strict=True)
    ]
    with torch.no_grad():
        model(tokens)
    model.merge_adapter(safe_merge=True)
    for layer, weight, base in zip(layers_of(model), wanted, before, strict=True):
        assert relative(layer.get_base_weight(), weight) < RELATIVE[bits] < relative(base, weight)
    model.unmerge_adapter()
    for layer, weight, base in zip(layers_of(model), wanted, before, strict=True):
        assert torch.linalg.norm(layer.get_base_weight() - base) < 2 * RELATIVE[bits] * torch.linalg.norm(weight)


@pytest.mark.parametrize("bits", BITS)
def test_the_unloaded_model_is_plain_quantised_and_speaks_like_the_adapted_one(quantised, randomise, tokens, bits):
    base = quantised(bits)
    kinds = [type(module) for module in base.modules()]
    with torch.no_grad():
        plain = base(tokens).logits
        model = randomise(attach(base))
        adapted = model(tokens).logits
        merged = model.merge_and_unload()
        assert [type(module) for module in merged.modules()] == kinds
        assert not any("lorta" in name for name, _ in merged.named_parameters())
        assert (merged(tokens).logits - adapted).norm() < 0.5 * (plain - adapted).norm()


@pytest.mark.parametrize("bits", BITS)
def test_an_evaluation_before_or_after_attaching_leaves_the_gradients_alone(quantised, randomise, tokens, bits):
    """On a CPU with AVX512-BF16 bitsandbytes packs evaluated 4-bit weights so that their layers have no gradient."""
    expected = gradients(randomise(attach(quantised(bits))), tokens)
    base = quantised(bits)
    with torch.no_grad():
        base(tokens)
        model = randomise(attach(base))
        model(tokens)
    found = gradients(model, tokens)
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    assert max(relative(found[name], expected[name]) for name in expected) < 0.02  # packing once rounds its scales


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_model_prepared_for_k_bit_training_has_the_same_gradients(quantised, randomise, tokens, bits, reentrant):
    expected = gradients(randomise(attach(quantised(bits))), tokens)
    base = prepare_model_for_kbit_training(quantised(bits), gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model = randomise(attach(base))
    assert model.base_model.model.is_gradient_checkpointing
    assert_close(gradients(model, tokens), expected, rtol=1e-3, atol=1e-4)


def test_a_4_bit_base_computing_in_bfloat16_keeps_float32_factors(backbone, randomise, tokens, tmp_path):
    backbone("llama_lm", **SHAPE).save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(**BITS["4 bit"], bnb_4bit_compute_dtype=torch.bfloat16)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings, dtype=torch.bfloat16)
    model = randomise(attach(base))
    found = gradients(model, tokens)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(value.abs().max() > 0 for value in found.values())
    assert model(tokens).logits.dtype == torch.bfloat16
