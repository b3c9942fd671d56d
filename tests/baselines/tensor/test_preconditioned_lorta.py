"""LoRTA with preconditioned gradients."""

import json
from itertools import product

import pytest
import torch
from peft import PeftModel, get_peft_model
from short_training import train

from baselines.tensor.preconditioned_lorta import (
    NAMES,
    PreconditionedLortaConfig,
    adapter_factors,
    normal_matrices,
    precondition,
)

SIZES = {"hidden": 7, "head_dim": 5, "heads": 4, "layers": 3, "matrices": 2}


def factors(r=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, r, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, size in SIZES.items()
    }


def tensor(found):
    return torch.einsum("ir,jr,hr,lr,mr->ijhlm", *(found[name] for name in NAMES))


def step(found, epsilon=0.0, rate=0.01):
    """The tensor after one preconditioned gradient step towards a fixed target."""
    target = torch.randn(tuple(SIZES.values()), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (tensor(found) - target).square().sum().backward()
    precondition(found, epsilon)
    return tensor({name: factor.detach() - rate * factor.grad for name, factor in found.items()})


def test_the_matrices_are_those_of_the_forks_loops_over_layers_heads_and_matrices():
    found = {name: factor.detach() for name, factor in factors().items()}
    b, heads, layers, matrices = (found[name] for name in NAMES[1:])
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for head, layer, matrix in product(range(4), range(3), range(2)):
        weighted = b * heads[head] * layers[layer] * matrices[matrix]
        expected += weighted.T @ weighted
    torch.testing.assert_close(normal_matrices(found)["hidden"], expected)


def test_a_matrix_is_the_normal_matrix_of_a_least_squares_step_for_its_factor():
    found = {name: factor.detach() for name, factor in factors().items()}
    others = [found[name] for name in NAMES if name != "layers"]
    khatri_rao = torch.einsum("ir,jr,hr,mr->ijhmr", *others).flatten(end_dim=-2)
    torch.testing.assert_close(normal_matrices(found)["layers"], khatri_rao.T @ khatri_rao)


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_a_step_does_not_depend_on_how_the_factors_share_a_scale(epsilon):
    found = factors()
    scaled = {name: factor.detach().clone() for name, factor in found.items()}
    scaled["hidden"] *= 8.0
    scaled["head_dim"] /= 8.0
    for factor in scaled.values():
        factor.requires_grad_(True)
    torch.testing.assert_close(tensor(scaled), tensor(found))
    torch.testing.assert_close(step(scaled, epsilon), step(found, epsilon))


def test_a_plain_step_does_depend_on_it():
    """What the test above would miss if nothing were preconditioned, as in one of the forks."""
    found, ends = factors(), []
    for scale in (1.0, 8.0):
        pair = {name: factor.detach().clone() for name, factor in found.items()}
        pair["hidden"] *= scale
        pair["head_dim"] /= scale
        for factor in pair.values():
            factor.requires_grad_(True)
        tensor(pair).square().sum().backward()
        ends.append(tensor({name: factor.detach() - 1e-4 * factor.grad for name, factor in pair.items()}))
    assert (ends[0] - ends[1]).norm() > 1e-3 * ends[0].norm()


def test_at_rank_1_no_direction_changes():
    found = factors(r=1)
    tensor(found).square().sum().backward()
    before = {name: factor.grad.clone() for name, factor in found.items()}
    precondition(found, 1e-6)
    for name, factor in found.items():
        torch.testing.assert_close(factor.grad / factor.grad.norm(), before[name] / before[name].norm())


def test_at_the_start_the_zero_factor_has_a_finite_step_and_the_others_none():
    found = factors()
    with torch.no_grad():
        found["head_dim"].zero_()
    step(found, 1e-6)
    assert all(torch.isfinite(factor.grad).all() for factor in found.values())
    assert found["head_dim"].grad.any()
    assert not [name for name in NAMES if name != "head_dim" and found[name].grad.any()]


def test_training_preconditions_and_the_adapter_is_a_lorta(adapter, backbone, tokens, tmp_path):
    method, plain = adapter("lorta_preconditioned", 4), adapter("lorta", 4)
    ends = []
    for each in (method, plain):
        torch.manual_seed(5)
        model = each.attach(backbone("roberta"), "SEQ_CLS")
        train(each, model, tmp_path, max_steps=4)
        ends.append(adapter_factors(model)[0]["hidden"].detach())
    assert not torch.equal(*ends)
    model = method.attach(backbone("roberta"), "SEQ_CLS").eval()
    method.save(model, tmp_path / "saved")
    assert "epsilon" not in json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path / "saved")
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)


def test_another_order_and_feed_forward_factors_are_refused(backbone):
    with pytest.raises(ValueError, match="order must be 5_way, got '3_way_joint'"):
        PreconditionedLortaConfig(order="3_way_joint")
    base = backbone("roberta")
    config = PreconditionedLortaConfig(r=2, target_modules=base.geometry.target_regex(["q", "up", "down"]))
    with pytest.raises(ValueError, match="adapt q, k, v and o only"):
        adapter_factors(get_peft_model(base.model, config))
