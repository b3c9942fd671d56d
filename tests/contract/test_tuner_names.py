"""An adapter is loaded under any name, with little memory or not, and a base that carries one already is no trap."""

import pytest
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.contract.backbones import logits
from tests.contract.tuners import attach, base, external, same


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("name", external())
def test_an_adapter_is_loaded_under_another_name_than_it_was_saved_with(name, low_cpu_mem_usage, tmp_path):
    model = attach(name)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(name), tmp_path, "first", low_cpu_mem_usage=low_cpu_mem_usage)
    assert same(logits(again), logits(model))
    loaded = again.load_adapter(tmp_path, "second", low_cpu_mem_usage=low_cpu_mem_usage)
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    again.set_adapter("second")
    assert same(logits(again), logits(model))
    assert not any(weight.is_meta for weight in (*again.parameters(), *again.buffers()))


@pytest.mark.parametrize("name", external())
def test_a_checkpoint_names_no_adapter(name, tmp_path):
    attach(name, adapter_name="unseen").save_pretrained(tmp_path)
    assert not [key for key in load_file(tmp_path / "unseen" / "adapter_model.safetensors") if "unseen" in key]


def test_checkpoints_with_the_name_inside_are_still_read(tmp_path):
    model = attach("deep_lora")
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    old = {key.replace("_branch.", "_branch.default."): weight for key, weight in load_file(file).items()}
    save_file(old, file, metadata={"format": "pt"})
    for adapter_name in ("default", "second"):
        assert same(logits(PeftModel.from_pretrained(base("deep_lora"), tmp_path, adapter_name)), logits(model))
