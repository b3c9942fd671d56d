"""A hundred adapters beside one model: each is its own, and choosing one costs no rebuilding."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close

from lorta.tuner import LortaConfig, LortaLinear

COUNT = 100


@pytest.fixture
def folders(backbone, randomise, tmp_path):
    """A hundred saved adapters with weights of their own, of ranks 1 to 4."""
    configs = [LortaConfig(r=rank, alpha=2.0, task_type="CAUSAL_LM") for rank in (1, 2, 3, 4)]
    models = [get_peft_model(backbone("llama_lm"), config) for config in configs]
    for number in range(COUNT):
        randomise(models[number % 4], seed=number).save_pretrained(tmp_path / str(number))
    return tmp_path


def test_a_hundred_saved_adapters_load_beside_each_other_and_swap(backbone, folders, tokens):
    expected = [
        PeftModel.from_pretrained(backbone("llama_lm"), folders / str(number)).eval()(tokens).logits
        for number in (0, 57, 99)
    ]
    assert not torch.allclose(expected[0], expected[1], atol=0.05)
    model = PeftModel.from_pretrained(backbone("llama_lm"), folders / "0", adapter_name="0").eval()
    modules = sum(1 for _ in model.base_model.model.modules())
    for number in range(1, COUNT):
        model.load_adapter(str(folders / str(number)), adapter_name=str(number))
    assert sum(1 for _ in model.base_model.model.modules()) == modules
    for _ in range(2):
        for number, logits in zip((0, 57, 99), expected, strict=True):
            model.set_adapter(str(number), inference_mode=True)
            assert_close(model(tokens).logits, logits)
    mixed = model(tokens, adapter_names=["57", "0", "99"]).logits
    assert_close(mixed, torch.stack([expected[1][0], expected[0][1], expected[2][2]]), rtol=1e-4, atol=1e-5)


def test_choosing_an_adapter_makes_it_alone_trainable_unless_for_inference(backbone):
    model = get_peft_model(backbone("roberta"), LortaConfig(r=2))
    for name in ("second", "third"):
        model.add_adapter(name, LortaConfig(r=3))

    def trainable():
        return {key.rsplit(".", 1)[1] for key, value in model.named_parameters() if value.requires_grad}

    for name in ("second", "default", "third"):
        model.set_adapter(name)
        assert trainable() == {name}
    model.set_adapter("second", inference_mode=True)
    assert trainable() == set()
    model.base_model.set_adapter(["default", "third"])
    assert trainable() == {"default", "third"}
    assert all(
        layer.active_adapters == ["default", "third"] for layer in model.modules() if isinstance(layer, LortaLinear)
    )
