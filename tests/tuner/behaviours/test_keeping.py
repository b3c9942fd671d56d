"""Saving, loading and copying, on an encoder, a decoder with grouped heads, a fused decoder and T5."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.testing import assert_close
from tuners import CLOSE, differs


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_reloaded_adapter_is_exact_and_frozen(pair, tmp_path, low_cpu_mem_usage):
    model = pair.attach()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(pair.base(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(pair.logits(again), pair.logits(model))
    assert not any(weight.requires_grad for weight in again.parameters())
    assert not any(weight.is_meta for weight in again.parameters())


def test_a_saved_adapter_is_a_configuration_and_safetensors(encoder, tmp_path):
    encoder.attach().save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files - {"README.md"} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_reloaded_adapter_can_be_trained_on(pair, tmp_path):
    model = pair.attach()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(pair.base(), tmp_path, is_trainable=True)
    trainable = {name for name, weight in again.named_parameters() if weight.requires_grad}
    assert trainable == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_a_state_dict_goes_from_one_model_to_another(pair):
    first, second = pair.attach(), pair.attach(seed=5)
    set_peft_model_state_dict(second, get_peft_model_state_dict(first))
    assert torch.equal(pair.logits(second), pair.logits(first))


def test_a_configuration_for_inference_freezes_the_adapter(pair):
    config = pair.config()
    config.inference_mode = True
    model = get_peft_model(pair.base(), config)
    assert not any(weight.requires_grad for weight in pair.weights(model).values())


def test_a_module_to_save_is_trained_saved_and_switched(encoder, tmp_path):
    base = encoder.base()
    extra = next(name for name, module in base.named_modules() if isinstance(module, nn.LayerNorm))
    model = encoder.attach(task={"modules_to_save": [extra]})
    module = model.base_model.model.get_submodule(extra)
    module.modules_to_save["default"].weight.data.add_(0.5)
    changed = encoder.logits(model)
    with model.disable_adapter():
        assert_close(encoder.logits(model), encoder.logits(base), **CLOSE)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(encoder.base(), tmp_path).eval()
    assert torch.equal(encoder.logits(again), changed)
    assert_close(encoder.logits(again.merge_and_unload()), changed, **CLOSE)


def test_a_copied_model_has_weights_of_its_own(pair):
    model = pair.attach()
    before = pair.logits(model)
    copied = pair.fill(copy.deepcopy(model), seed=6)
    assert differs(pair.logits(copied), before)
    assert torch.equal(pair.logits(model), before)
