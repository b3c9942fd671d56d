"""What a call may ask of a tuner: an adapter for each row, a precision, a functional call."""

import pytest
import torch
from peft import get_peft_model

from tests.contract.backbones import batch, logits
from tests.contract.tuners import attach, base, base_logits, config, external, fill, same


@pytest.mark.parametrize("name", external())
def test_each_row_of_a_batch_gets_the_adapter_it_asks_for(name):
    model = attach(name)
    alone = {"default": logits(model), "__base__": base_logits(name)}
    model.add_adapter("other", config(name))
    model.set_adapter("other")
    alone["other"] = logits(fill(model, seed=5))
    assert not same(alone["other"], alone["default"])
    names = ["other", "__base__", "default", "other"]
    with torch.no_grad():
        mixed = model(input_ids=batch()["input_ids"], adapter_names=names).logits
    for row, asked in enumerate(names):
        assert same(mixed[row], alone[asked][row]), asked
    with pytest.raises(ValueError, match="adapter"):
        model(input_ids=batch()["input_ids"], adapter_names=names[:-1])
    try:
        model.merge_adapter()
    except NotImplementedError:
        return
    with pytest.raises(ValueError, match="unmerge"):
        model(input_ids=batch()["input_ids"], adapter_names=names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", external())
def test_adapter_weights_take_the_dtype_of_the_base_when_peft_is_told_not_to_cast(name, dtype):
    exact = logits(attach(name, on=base(name).to(dtype).float()))
    for autocast, expected in ((False, dtype), (True, torch.float32)):
        model = attach(name, on=base(name).to(dtype), autocast_adapter_dtype=autocast)
        assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {expected}
        assert logits(model).dtype == dtype
        assert (logits(model).float() - exact).abs().max() < 0.2 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", external())
def test_a_model_that_is_cast_as_a_whole_computes_trains_and_merges(name, dtype):
    exact = logits(attach(name))
    model = attach(name).to(dtype)
    assert (logits(model).float() - exact).abs().max() < 0.2 * exact.abs().max()
    model.train()(input_ids=batch()["input_ids"]).logits.float().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    try:
        model.merge_adapter()
    except NotImplementedError:
        return
    assert (logits(model).float() - exact).abs().max() < 0.2 * exact.abs().max()


@pytest.mark.parametrize("name", external())
def test_torch_func_differentiates_with_respect_to_the_adapter(name):
    model = attach(name)
    weights = {path: weight.detach() for path, weight in model.named_parameters() if weight.requires_grad}
    ids = batch()["input_ids"]

    def loss(values):
        return torch.func.functional_call(model, values, (ids,), {"use_cache": False}).logits.square().sum()

    gradients = torch.func.grad(loss)(weights)
    loss_here = model(ids, use_cache=False).logits.square().sum()
    loss_here.backward()
    for path, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(gradients[path], weight.grad, rtol=1e-3, atol=1e-3 * weight.grad.abs().max())


@pytest.mark.parametrize("name", external())
def test_an_adapted_layer_has_the_sizes_of_its_base_layer(name):
    model = attach(name)
    layers = [layer for layer in model.modules() if isinstance(layer, type(model.base_model).tuner_layer_cls)]
    assert layers
    for layer in layers:
        assert (layer.in_features, layer.out_features) == tuple(reversed(layer.get_base_layer().weight.shape))


@pytest.mark.parametrize("name", external())
def test_deleting_an_adapter_leaves_nothing_of_it(name):
    model = attach(name)
    before = logits(model)
    for number in range(3):
        model.add_adapter(f"extra{number}", config(name))
        model.delete_adapter(f"extra{number}")
    assert same(logits(model), before)
    assert not [path for path in model.state_dict() if "extra" in path]
    tuner = model.base_model
    holders = [vars(tuner), *(vars(module) for module in tuner.modules())]
    named = [value for holder in holders for value in holder.values() if isinstance(value, dict)]
    assert not [key for value in named for key in value if "extra" in str(key)]


@pytest.mark.parametrize("name", external())
def test_an_adapter_can_be_made_after_all_were_deleted(name):
    model = attach(name)
    model.add_adapter("second", config(name))
    model.delete_adapter("default")
    assert model.active_adapter == "second"
    assert same(logits(get_peft_model(model.unload(), config(name))), logits(get_peft_model(base(name), config(name))))
