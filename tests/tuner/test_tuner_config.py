import json
from typing import get_args

import pytest

from lorta.tuner import LortaConfig
from lorta.tuner.factors import ORDERS, OrderName


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
        ({"scaling": "alpha*r"}, r"scaling must be one of alpha/r, alpha/sqrt\(r\), alpha; got 'alpha\*r'"),
        ({"order": "6_way"}, "order must be one of 5_way, 4_way_per_matrix, 4_way_per_layer, 3_way_joint, 3_way_per"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(values, named):
    with pytest.raises(ValueError, match=f"LortaConfig.{named}"):
        LortaConfig(**values)


def test_module_names_are_kept_in_an_order_that_does_not_depend_on_hashing():
    assert LortaConfig(target_modules={"value", "key", "query"}).target_modules == ["key", "query", "value"]


def test_every_order_has_a_name_that_the_configuration_knows():
    assert set(get_args(OrderName)) == set(ORDERS)


def test_config_survives_its_file(tmp_path):
    config = LortaConfig(
        r=3,
        alpha=2.0,
        layers_to_transform=1,
        head_side="input",
        init="reference",
        scaling="alpha",
        order="3_way_joint",
        exclude_modules=["key"],
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORTA"
    assert LortaConfig.from_pretrained(str(tmp_path)).to_dict() == config.to_dict()
