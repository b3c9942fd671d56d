"""Half precision bases and autocast, on an encoder, a decoder with grouped heads, a fused decoder and T5."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close


def dtypes(weights):
    return {weight.dtype for weight in weights.values()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_adapter_weights_stay_in_float32_on_a_half_precision_base(pair, dtype):
    model = pair.attach(base=pair.base().to(dtype), task={})
    assert dtypes(pair.weights(model)) == {torch.float32}
    assert pair.logits(model).dtype == dtype
    for layer in pair.layers(model).values():
        x = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(3)).to(dtype)
        update = layer.get_delta_weight("default").float()
        update = update.T if pair.backbone == "gpt2" else update
        exact = layer.base_layer(x).float() + x.float() @ update.T
        assert layer(x).dtype == dtype
        assert_close(layer(x).float(), exact, rtol=2e-2, atol=5e-2)


def test_a_merged_half_precision_base_keeps_its_dtype(pair):
    model = pair.attach(base=pair.base().to(torch.bfloat16), task={})
    exact = {
        path: layer.weight.float() + layer.get_delta_weight("default") for path, layer in pair.layers(model).items()
    }
    model.merge_adapter()
    for path, layer in pair.layers(model).items():
        assert layer.weight.dtype == torch.bfloat16
        assert_close(layer.weight.float(), exact[path], rtol=1e-2, atol=1e-2)


def test_adapter_weights_take_the_base_dtype_when_peft_is_told_not_to_cast(encoder):
    base = encoder.base().to(torch.bfloat16)
    model = get_peft_model(base, encoder.config(), autocast_adapter_dtype=False)
    assert dtypes(encoder.weights(model)) == {torch.bfloat16}


def test_a_float32_adapter_is_not_rounded_by_loading_it_on_a_bfloat16_base(encoder, tmp_path):
    model = encoder.attach(task={})
    model.save_pretrained(tmp_path)
    for low_cpu_mem_usage in (False, True):
        base = encoder.base().to(torch.bfloat16)
        again = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
        assert all(torch.equal(weight, encoder.weights(model)[name]) for name, weight in encoder.weights(again).items())


def test_autocast_trains_float32_weights(pair):
    model = pair.attach()
    exact = pair.loss(model).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = pair.loss(model)
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.2, abs=0.2)
    gradients = [weight.grad for weight in pair.weights(model).values()]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in gradients)
