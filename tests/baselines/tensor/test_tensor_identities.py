"""Where two methods of the tensor family, or one and LoRTA, are the same map: two implementations check each other."""

import pytest
import torch
from peft import get_peft_model
from tensor_oracles import draw, geometry, slots, update
from torch.testing import assert_close

from baselines.tensor.cara import CaraConfig, CaraModel
from baselines.tensor.fact import FactConfig, FactModel
from baselines.tensor.lotr import LotrConfig, LotrModel
from baselines.tensor.metatt import MetattConfig, MetattModel
from baselines.tensor.tenslora import MODES, TensloraConfig, TensloraModel
from lorta.tuner import LortaConfig

QV, QKV = ("q", "v"), ("q", "k", "v")


def same(first, second, roles):
    """Compare every update of two (model class, config, factors)."""
    for place in slots(2, roles):
        assert_close(update(*first, *place), update(*second, *place))


def test_fact_as_a_train_is_lotr_with_a_shared_pair():
    fact, lotr = FactConfig(r=3, form="tt", scale=0.5), LotrConfig(r=3, alpha=1.5)
    factors = draw(FactModel, fact, geometry(), QV, 0)
    named = draw(LotrModel, lotr, geometry(), QV, 1)
    named |= {"left": factors["output"], "core": factors["cores"], "right": factors["input"].T}
    same((FactModel, fact, factors), (LotrModel, lotr, named), QV)


def test_metatt_is_lotr_whose_cores_are_products():
    metatt, lotr = MetattConfig(r=3, order="4d"), LotrConfig(r=3, alpha=3.0)
    factors = draw(MetattModel, metatt, geometry(), QV, 0)
    named = draw(LotrModel, lotr, geometry(), QV, 1)
    products = [layer @ matrix for layer in factors["layers"] for matrix in factors["matrices"]]
    named |= {"left": factors["last"].T, "core": torch.stack(products).transpose(1, 2), "right": factors["first"]}
    same((MetattModel, metatt, factors), (LotrModel, lotr, named), QV)


def test_metatt_with_equal_heads_is_metatt_without_them_up_to_repeated_columns():
    five, four = MetattConfig(r=3, order="5d"), MetattConfig(r=3, order="4d")
    factors = draw(MetattModel, five, geometry(), QV, 0)
    plain = draw(MetattModel, four, geometry(), QV, 1)
    factors["heads"] = factors["heads"][:1].repeat(2, 1, 1)
    last = (factors["heads"][0] @ factors["last"]).repeat(1, 2)
    plain |= {"first": factors["first"], "layers": factors["layers"], "matrices": factors["matrices"], "last": last}
    same((MetattModel, five, factors), (MetattModel, four, plain), QV)


def test_tenslora_with_a_free_core_for_every_slice_is_lotr():
    tucker, lotr = TensloraConfig(modes="qkv_depth", ranks=[3, 3, 2, 2]), LotrConfig(r=3, alpha=3.0)
    factors = draw(TensloraModel, tucker, geometry(), QV, 0)
    named = draw(LotrModel, lotr, geometry(), QV, 1)
    factors |= {"matrices": torch.eye(2, dtype=torch.float64)[None], "layers": torch.eye(2, dtype=torch.float64)[None]}
    cores = factors["core"][0].permute(3, 2, 1, 0).flatten(0, 1)  # (layer, matrix) by output and input rank
    named |= {"left": factors["output"][0], "core": cores, "right": factors["input"][0]}
    same((TensloraModel, tucker, factors), (LotrModel, lotr, named), QV)


def superdiagonal(rank, modes, tensors):
    core = torch.zeros(tensors, *[rank] * modes, dtype=torch.float64)
    for component in range(rank):
        core[(slice(None), *[component] * modes)] = 1.0
    return core


@pytest.mark.parametrize("modes", MODES)
def test_a_cp_tensor_is_a_tucker_tensor_with_a_superdiagonal_core(modes):
    cp, tucker = (TensloraConfig(r=3, modes=modes, factorization=name) for name in ("cp", "tucker"))
    factors = draw(TensloraModel, cp, geometry(), QKV, 0)
    with_core = draw(TensloraModel, tucker, geometry(), QKV, 1)
    core = superdiagonal(3, with_core["core"].dim() - 1, len(with_core["core"]))
    same((TensloraModel, cp, factors), (TensloraModel, tucker, factors | {"core": core}), QKV)


def of_lorta(backbone, randomise):
    """A LoRTA model on q, k and v, its factors by plain names in float64, and its dense updates."""
    model = get_peft_model(
        backbone("roberta").model, LortaConfig(r=3, alpha=3.0, target_modules=["query", "key", "value"])
    )
    randomise(model)
    names = ("hidden", "head_dim", "heads", "layers", "matrices")
    factors = {name: getattr(model.base_model, f"lorta_{name}")["default"].detach().double() for name in names}
    attention = [layer.attention.self for layer in model.base_model.model.roberta.encoder.layer]
    modules = [module for layer in attention for module in (layer.query, layer.key, layer.value)]
    return factors, [module.get_delta_weight("default").double() for module in modules]


@pytest.mark.parametrize("factorization", ["cp", "tucker"])
def test_lorta_is_tenslora_over_all_modes_in_cp_form(backbone, randomise, factorization):
    factors, expected = of_lorta(backbone, randomise)
    config = TensloraConfig(r=3, modes="att_qkv_depth", factorization=factorization)
    named = draw(TensloraModel, config, backbone("roberta").geometry, QKV, 0)
    named |= {"input": factors.pop("hidden")[None]} | {name: factor[None] for name, factor in factors.items()}
    if factorization == "tucker":
        named["core"] = superdiagonal(3, 5, 1)
    for place, delta in zip(slots(2, QKV), expected, strict=True):
        assert_close(update(TensloraModel, config, named, *place), delta, rtol=1e-5, atol=1e-6)


def test_lorta_is_cara_whose_slots_are_products_of_layers_and_projections(backbone, randomise):
    factors, expected = of_lorta(backbone, randomise)
    config = CaraConfig(r=3)
    named = draw(CaraModel, config, backbone("roberta").geometry, QKV, 0)
    products = (factors["layers"][:, None] * factors["matrices"]).flatten(0, 1)
    ones = torch.ones(3, dtype=torch.float64)
    named |= {"slots": products, "weights": ones, "inputs": factors["hidden"]}
    named |= {name: factors[name] for name in ("heads", "head_dim")}
    for place, delta in zip(slots(2, QKV), expected, strict=True):
        assert_close(update(CaraModel, config, named, *place), delta, rtol=1e-5, atol=1e-6)
