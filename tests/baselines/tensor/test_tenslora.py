"""TensLoRA's seven tensorisations, in Tucker and CP form, against the whole tensors in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_oracles import draw, geometry, slots, update

from baselines.tensor.places import tenslora_parameters
from baselines.tensor.tenslora import MODES, TensloraConfig, TensloraModel

ROLES = st.sets(st.sampled_from("qkv"), min_size=1).map(lambda roles: tuple(sorted(roles)))


def tensors_of(config, factors):
    """Every tensor, (number, input, output, matrices, layers); a mode that is not stacked has size 1."""
    core = factors.get("core")
    names = ["input", *(("head_dim", "heads") if "heads" in factors else ("output",))]
    names += [name for name in ("matrices", "layers") if name in factors]
    ranks = "abcde"[: len(names)] if core is not None else "a" * len(names)
    terms = [f"t{'uvwxy'[place]}{rank}" for place, rank in enumerate(ranks)]
    parts = [factors[name] for name in names]
    if core is not None:
        terms, parts = ["t" + ranks, *terms], [core, *parts]
    whole = torch.einsum(",".join(terms) + "->t" + "uvwxy"[: len(names)], *parts)
    if "heads" in factors:
        whole = whole.transpose(2, 3).flatten(2, 3)
    for place, name in ((3, "matrices"), (4, "layers")):
        whole = whole if name in factors else whole.unsqueeze(place)
    return whole


@given(st.sampled_from(MODES), st.sampled_from(["tucker", "cp"]), st.integers(1, 3), st.integers(1, 3), ROLES)
@settings(max_examples=60, deadline=None)
def test_every_update_is_a_slice_of_its_tensor(modes, factorization, rank, layers, roles):
    config = TensloraConfig(r=rank, modes=modes, factorization=factorization, scale=0.5)
    factors = draw(TensloraModel, config, geometry(layers, heads=2, head_dim=3), roles, rank)
    whole, places = tensors_of(config, factors), slots(layers, roles)
    for number, (layer, role) in enumerate(places):
        matrix = number % len(set(roles))
        tensor = 0 if "qkv" in modes else matrix
        tensor = tensor if "depth" in modes else tensor * layers + layer
        expected = whole[tensor, :, :, matrix if "qkv" in modes else 0, layer if "depth" in modes else 0].T
        torch.testing.assert_close(update(TensloraModel, config, factors, layer, role), 0.5 * expected)
    assert sum(f.numel() for f in factors.values()) == tenslora_parameters(geometry(layers), vars(config), roles)


def test_every_mode_can_have_a_rank_of_its_own():
    config = TensloraConfig(modes="att_qkv_depth", ranks=[4, 3, 2, 1, 2])
    factors = draw(TensloraModel, config, geometry(), ("q", "k", "v"), 0)
    assert factors["core"].shape == (1, 4, 3, 2, 1, 2)
    whole = tensors_of(config, factors)
    torch.testing.assert_close(update(TensloraModel, config, factors, 1, "k"), whole[0, :, :, 1, 1].T)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"ranks": [2, 2]}, r"one number for each of the 4 modes, got \[2, 2\]"),
        ({"ranks": [2, 2, 2, 2], "factorization": "cp"}, "CP factorization has one rank for all modes"),
        ({"modes": "depth_qkv"}, "modes must be one of att, qkv"),
        ({"factorization": "tt"}, "factorization must be one of tucker, cp"),
    ],
)
def test_settings_that_make_no_tensor_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        draw(TensloraModel, TensloraConfig(**settings_), geometry(), ("q", "k", "v"), 0)


@pytest.mark.parametrize("init", ["orthogonal", "normal", "kaiming_uniform"])
@pytest.mark.parametrize("factorization", ["tucker", "cp"])
def test_a_start_draws_every_tensor_anew_and_gives_no_update(init, factorization):
    config = TensloraConfig(r=2, modes="qkv", init=init, factorization=factorization)
    draw(TensloraModel, config, geometry(), ("q", "k", "v"), 0)
    factors = TensloraModel.initial(config)
    assert not torch.equal(*factors["output"])
    assert all(update(TensloraModel, config, factors, *slot).abs().max() == 0 for slot in slots(2, ("q", "k", "v")))
    if init == "orthogonal":
        torch.testing.assert_close(factors["output"][1].T @ factors["output"][1], torch.eye(2))
