"""FacT's algebra in both forms, against the whole tensor of blocks in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_oracles import ORDER, draw, geometry, slots, update
from torch.nn import functional

from baselines.tensor.fact import FactConfig, FactModel

ROLES = st.sets(st.sampled_from(ORDER), min_size=1).map(lambda roles: tuple(sorted(roles)))


def tensor_of(config, factors):
    """Every block, (block, outputs, inputs)."""
    if config.form == "tt":
        return torch.einsum("oa,jab,bi->joi", factors["output"], factors["cores"], factors["input"])
    whole = [factors[name] for name in ("output", "core", "slices", "input")]
    return torch.einsum("oa,abt,tj,bi->joi", *whole)


@given(st.sampled_from(["tt", "tk"]), st.integers(1, 4), st.integers(1, 3), ROLES, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_update_is_made_of_its_blocks(form, rank, blocks, roles, seed):
    roles = ("q", *roles)  # so that a block is hidden x hidden
    config = FactConfig(r=rank, form=form, scale=0.5)
    factors = draw(FactModel, config, geometry(blocks=blocks), roles, seed)
    parts = iter(tensor_of(config, factors))
    for layer, role in slots(2, roles):
        count = blocks if role in ("gate", "up", "down") else 1
        own = [next(parts) for _ in range(count)]
        expected = torch.cat(own, dim=1 if role == "down" else 0)
        torch.testing.assert_close(update(FactModel, config, factors, layer, role), 0.5 * expected)
    assert next(parts, None) is None


def test_tucker_form_with_one_hot_slices_is_a_tensor_train():
    train, tucker = FactConfig(r=4, form="tt"), FactConfig(r=4, form="tk")
    cores = draw(FactModel, train, geometry(), ("q", "v"), 0)
    core = draw(FactModel, tucker, geometry(), ("q", "v"), 1)
    chosen = [2, 0, 3, 1]
    core |= {"input": cores["input"], "output": cores["output"], "slices": torch.eye(4, dtype=torch.float64)[:, chosen]}
    cores["cores"] = core["core"].permute(2, 0, 1)[chosen]
    for slot in slots(2, ("q", "v")):
        torch.testing.assert_close(update(FactModel, tucker, core, *slot), update(FactModel, train, cores, *slot))


def test_dropout_falls_between_core_and_output_factor(adapter, backbone, randomise):
    model = adapter("fact_tt", 3, dropout=0.5).attach(backbone("roberta", intermediate_size=48), "SEQ_CLS")
    randomise(model)
    layer = model.base_model.model.roberta.encoder.layer[1].output.dense.train()
    down, up = layer.low_rank_pair("default")
    x = torch.randn(5, 48)
    torch.manual_seed(3)
    found = layer.update(x, "default")
    torch.manual_seed(3)
    torch.testing.assert_close(found, functional.dropout(x @ down, 0.5) @ up.T)
    assert down.shape == (48, 3)  # the cores are on the side of the inputs, so what is dropped has the tensor's rank


def test_the_start_of_each_factor_is_the_released_one():
    config = FactConfig(r=4, form="tt")
    draw(FactModel, config, geometry(layers=40, heads=8, head_dim=8, blocks=4), ("q", "up", "down"), 0)
    found = FactModel.initial(config)
    cores = found["cores"].unflatten(0, (40, 9)).abs()
    assert found["output"].abs().max() == 0
    assert found["input"].abs().max() == pytest.approx(1 / 8, rel=0.05)
    assert cores[:, :5].max() == pytest.approx(1 / 2, rel=0.05)
    assert cores[:, 5:].max() == pytest.approx(1 / 4, rel=0.05)  # the blocks of down: one linear layer of 4 r inputs


@pytest.mark.parametrize(
    ("settings_", "message"),
    [({"form": "cp"}, "form must be one of tt, tk"), ({"r": 0}, "FactConfig.r must be a whole number")],
)
def test_a_wrong_setting_is_refused_with_its_value(settings_, message):
    with pytest.raises(ValueError, match=message):
        FactConfig(**settings_)
