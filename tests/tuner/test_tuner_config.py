import json

import pytest

from lorta.tuner import LortaConfig


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"r": 0}, "r must be a whole number of at least 1, got 0"),
        ({"r": 2.0}, "r must be a whole number"),
        ({"r": True}, "r must be a whole number"),
        ({"alpha": 0.0}, "alpha must be a positive number"),
        ({"alpha": float("nan")}, "alpha must be a positive number"),
        ({"init_scale": -1.0}, "init_scale must be a number of at least 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"init": "zeros"}, "init must be one of reference, rank_neutral"),
        ({"head_side": "left"}, "head_side must be one of natural, input, output"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(values, named):
    with pytest.raises(ValueError, match=f"LortaConfig.{named}"):
        LortaConfig(**values)


def test_module_names_are_kept_in_an_order_that_does_not_depend_on_hashing():
    assert LortaConfig(target_modules={"value", "key", "query"}).target_modules == ["key", "query", "value"]


def test_config_survives_its_file(tmp_path):
    config = LortaConfig(r=3, alpha=2.0, layers_to_transform=1, head_side="input", init="reference")
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORTA"
    assert LortaConfig.from_pretrained(str(tmp_path)).to_dict() == config.to_dict()
