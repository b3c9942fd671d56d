"""Half precision bases, autocast and gradient checkpointing, together and alone."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from lorta.tuner import LortaConfig, LortaLinear

NAMES = ("roberta", "llama")  # an encoder; a decoder with two query heads a key head
LABELS = torch.tensor([0, 1, 1])


@pytest.fixture
def adapted(backbone, randomise):
    def build(name, dtype=torch.float32, head=True, **settings):
        config = LortaConfig(**{"r": 3, "alpha": 0.5, "task_type": "SEQ_CLS" if head else None} | settings)
        return randomise(get_peft_model(backbone(name).to(dtype), config)).train()

    return build


def gradients(model, tokens, **autocast):
    model.zero_grad()
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        loss = model(tokens, labels=LABELS).loss
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if "lorta_" in name}


def relative(found, expected):
    return max(((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_checkpointing_repeats_the_gradients(adapted, tokens, name, reentrant, autocast):
    settings = {"dtype": torch.bfloat16} if autocast else {}
    # without reentrance all layers share one bfloat16 copy of a factor, whose gradient is summed in bfloat16
    tolerance = 0.1 if autocast else 1e-5
    model = adapted(name)
    expected = gradients(model, tokens, **settings)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.base_model.model.is_gradient_checkpointing
    assert relative(gradients(model, tokens, **settings), expected) < tolerance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_draws_the_same_dropout_again(adapted, tokens, name, reentrant):
    results = []
    for checkpointing in (False, True):
        model = adapted(name, dropout=0.5)
        model.enable_input_require_grads()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(4)
        results.append(gradients(model, tokens))
    assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


def as_lora(model, base):
    """PEFT's LoRA on the same base with the same update in every layer."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LortaLinear)}
    targets = [name.removeprefix("base_model.model.") for name in layers]
    rank = model.peft_config["default"].r
    config = LoraConfig(r=rank, lora_alpha=rank, task_type="SEQ_CLS", target_modules=targets)
    lora = get_peft_model(base, config).train()
    for name, layer in layers.items():
        down, up = layer.low_rank_pair("default")
        lora.get_submodule(name).lora_A["default"].weight.data = down.detach().T.contiguous()
        lora.get_submodule(name).lora_B["default"].weight.data = up.detach()
    return lora


@pytest.mark.parametrize("name", NAMES)
def test_autocast_rounds_no_more_than_it_does_with_lora(adapted, backbone, name):
    model = adapted(name)
    lora = as_lora(model, backbone(name))
    tokens, errors = torch.randint(1, 48, (64, 7), generator=torch.Generator().manual_seed(0)), []
    with torch.no_grad():
        exact = model(tokens).logits
        assert_close(lora(tokens).logits, exact, rtol=1e-4, atol=1e-4)
        for each in (model, lora):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = each(tokens).logits
            assert rounded.dtype == torch.bfloat16
            errors.append((rounded - exact).norm() / exact.norm())
    assert 0 < errors[0] < 1.25 * errors[1]


def test_autocast_leaves_gradients_in_float32(adapted, tokens):
    found = gradients(adapted("llama"), tokens, dtype=torch.bfloat16)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.isfinite(value).all() and value.abs().max() > 0 for value in found.values())


def rounding(model, tokens, direction, dtype):
    """The error of all adapter gradients under autocast, as a share of their norm."""
    results = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            states = model.base_model.model.roberta(tokens).last_hidden_state
        (states.float() * direction).sum().backward()
        trained = [value.grad for name, value in model.named_parameters() if "lora_" in name or "lorta_" in name]
        results.append(torch.cat([gradient.flatten() for gradient in trained]))
    return ((results[1] - results[0]).norm() / results[0].norm()).item()


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.0025)], ids=str)
def test_gradients_of_twelve_layers_under_autocast_are_as_exact_as_those_of_lora(backbone, randomise, dtype, most):
    sizes = {"num_hidden_layers": 12, "hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    model = get_peft_model(backbone("roberta", **sizes), LortaConfig(r=4, alpha=4.0, task_type="SEQ_CLS")).train()
    errors = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(1, 48, (8, 16), generator=generator)
        direction = torch.randn(8, 16, 64, generator=generator)
        for name, value in randomise(model, seed=seed).named_parameters():
            if "lorta_" in name:
                value.data *= 0.3
        lora = as_lora(model, backbone("roberta", **sizes))
        errors.append([rounding(each, tokens, direction, dtype) for each in (model, lora)])
    mine, loras = torch.tensor(errors).square().mean(dim=0).sqrt().tolist()
    assert 0 < mine < 1.6 * loras  # 0.7 to 1.5 of it, as rounding falls
    assert mine < most


@pytest.mark.parametrize("inside", [True, False], ids=["autocast around both passes", "autocast around backward"])
def test_a_backward_pass_under_autocast_gives_the_same_gradients(adapted, tokens, inside):
    model = adapted("roberta")
    settings = {"dtype": torch.bfloat16} if inside else {}
    expected = gradients(model, tokens, **settings)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.autocast("cpu", enabled=inside):
            loss = model(tokens, labels=LABELS).loss
        loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if "lorta_" in name}
    assert relative(found, expected) < 0.05  # PyTorch's own operations compute in bfloat16 then


def test_float64_stays_float64_under_autocast(layers):
    model, members = layers()
    model.double()
    for container in (getattr(model.base_model, name) for name in members[0].adapter_layer_names):
        for name in container:
            container[name].data = container[name].data.double()
    x = torch.randn(2, 24, dtype=torch.float64)
    expected = [member(x) for member in members]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close([member(x) for member in members], expected)


def test_gradients_under_autocast_are_those_of_float32_up_to_rounding(adapted, tokens):
    model = adapted("llama")
    expected, found = gradients(model, tokens), gradients(model, tokens, dtype=torch.bfloat16)
    assert 0 < relative(found, expected) < 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_base_trains_float32_factors(adapted, tokens, name, dtype):
    model = adapted(name, dtype, head=False)
    before = copy.deepcopy(model.state_dict())
    expected = gradients(adapted(name, head=False), tokens)
    found = gradients(model, tokens)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert relative(found, expected) < (0.02 if dtype is torch.float16 else 0.15)
    torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-5).step()
    for key, value in model.state_dict().items():  # a step below the resolution of either half type
        assert torch.equal(value, before[key]) != ("lorta_" in key), key
        assert value.dtype == (torch.float32 if "lorta_" in key else dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_factors_on_a_half_precision_base_have_gradients(backbone, randomise, tokens, dtype):
    config = LortaConfig(r=3, alpha=0.5)
    model = randomise(get_peft_model(backbone("llama").to(dtype), config, autocast_adapter_dtype=False)).train()
    found = gradients(model, tokens)
    assert {value.dtype for value in found.values()} == {dtype}
    assert all(torch.isfinite(value).all() and value.abs().max() > 0 for value in found.values())
