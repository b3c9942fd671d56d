"""What one Adam step does to the loss, by rank: the reason for the `rank_neutral` initial distribution."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from lorta.tuner import LortaConfig
from lorta.tuner.factors import ORDERS, initial_bounds

RANKS = (1, 4, 16, 64)


@pytest.fixture
def falls(backbone, tokens):
    """Return falls(init): how much one step lowers the loss at each rank, at one rate and alpha, over 8 draws."""

    def one_step(init, rank, seed):
        base = backbone("roberta").double()
        torch.manual_seed(seed)
        model = get_peft_model(base, LortaConfig(r=rank, alpha=1.0, init=init))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-6)
        labels = torch.tensor([0, 1, 1])
        before = nn.functional.cross_entropy(model(tokens).logits, labels)
        before.backward()
        optimizer.step()
        return (before - nn.functional.cross_entropy(model(tokens).logits, labels)).item()

    return lambda init: [sum(one_step(init, rank, seed) for seed in range(8)) / 8 for rank in RANKS]


def test_one_step_with_the_neutral_init_lowers_the_loss_alike_at_every_rank(falls):
    by_rank = falls("rank_neutral")
    assert min(by_rank) > 0
    assert max(by_rank) / min(by_rank) < 2


def test_one_step_with_the_reference_init_fades_like_one_over_the_rank_squared(falls):
    by_rank = falls("reference")
    assert by_rank[0] / by_rank[-1] == pytest.approx(64**2, rel=0.5)


def test_neutral_and_reference_are_the_same_draw_at_rank_four(backbone):
    drawn = []
    for init in ("rank_neutral", "reference"):
        torch.manual_seed(7)
        model = get_peft_model(backbone("roberta"), LortaConfig(r=4, init=init))
        drawn.append({name: value for name, value in model.named_parameters() if value.requires_grad})
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


@pytest.mark.parametrize("init", ["rank_neutral", "reference"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_factor_but_head_dim_starts_within_its_bounds_and_not_at_zero(backbone, init, order):
    targets = ["query", "value", "intermediate.dense"]
    torch.manual_seed(7)
    model = get_peft_model(backbone("roberta"), LortaConfig(r=16, init=init, order=order, target_modules=targets))
    bounds = initial_bounds(16, init, 0.0)
    drawn = {
        name: box["default"]
        for name, box in model.base_model.named_children()
        if "default" in getattr(box, "keys", list)()
    }
    assert len(drawn) > 2
    for name, factor in drawn.items():
        bound = bounds[name.removeprefix("lorta_")]
        if name.endswith("head_dim"):
            assert not factor.any()
        else:
            assert 0.7 * bound < factor.abs().max() <= bound
