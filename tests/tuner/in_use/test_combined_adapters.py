"""Sums of adapters and shared factors: files and refusals. Their numbers are in test_reference_faults.py."""

import pytest
import torch
from peft import PeftModel

from lorta.tuner import LortaConfig


def test_a_weighted_adapter_is_saved_like_any_other(adapted, backbone, tokens, tmp_path, randomise):
    model = adapted()
    model.add_adapter("second", LortaConfig(r=2))
    randomise(model, "second", seed=4)
    model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")
    model.set_adapter("sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = PeftModel.from_pretrained(backbone("roberta"), tmp_path / "sum")
    assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("changes", "arguments", "sentence"),
    [
        ({"order": "3_way_joint"}, {}, "differ in order, head_side or target modules"),
        ({"head_side": "input"}, {}, "differ in order, head_side or target modules"),
        ({"layers_to_transform": [0]}, {}, "differ in order, head_side or target modules"),
        ({}, {"combination_type": "svd"}, "use combination_type='cat', got 'svd'"),
        ({}, {"adapter_name": "second"}, "'second' exists already"),
        ({}, {"weights": [1.0]}, "one weight for each adapter, got 2 adapters and 1 weights"),
        ({}, {"adapters": [], "weights": []}, "one weight for each adapter, got 0 adapters"),
        ({}, {"adapters": ["default", "third"]}, "there is no adapter third; loaded: default, second"),
        ({}, {"weights": [1.0, float("nan")]}, "must be finite numbers, got nan"),
    ],
)
def test_add_weighted_adapter_refuses_what_it_cannot_add(adapted, changes, arguments, sentence):
    model = adapted()
    model.add_adapter("second", LortaConfig(r=2, **changes))
    with pytest.raises(ValueError, match=sentence):
        model.add_weighted_adapter(
            **({"adapters": ["default", "second"], "weights": [1.0, 1.0], "adapter_name": "sum"} | arguments)
        )
    assert list(model.peft_config) == ["default", "second"]
    assert not [path for path in model.state_dict() if "sum" in path]


def test_shared_factors_are_saved_with_each_adapter(adapted, backbone, tokens, randomise, tmp_path):
    model = adapted()
    model.add_adapter("second", LortaConfig(r=3))
    model.share_factors("second", "default", ["hidden", "head_dim"])
    model.set_adapter("second")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta"), tmp_path / "second")
    assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(("rank", "name"), [(4, "hidden"), (3, "slices"), (3, "nothing")])
def test_factors_of_another_shape_or_order_are_not_shared(adapted, rank, name):
    model = adapted()
    model.add_adapter("second", LortaConfig(r=rank))
    with pytest.raises(ValueError, match=f"have no factor '{name}' of one shape"):
        model.share_factors("second", "default", [name])
