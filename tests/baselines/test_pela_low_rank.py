"""PELA's low-rank pairs: their ranks, their closeness to the weights, and the perturbation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from baselines.pela.adapter import projection_weights, ranks
from baselines.pela.low_rank import compress, low_rank_pair, perturbation
from lorta.geometry import Geometry

SIZES = {
    "roberta-base": {"model_type": "roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 3072},
    "roberta-large": {"model_type": "roberta", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"intermediate_size": 4096},
    "llama-2-7b": {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"intermediate_size": 11008},
}


@pytest.mark.parametrize(
    ("model", "ratio", "attention", "feedforward", "weights"),
    [
        ("roberta-base", 1.5, 256, 409, 56_567_808),
        ("roberta-base", 2, 192, 307, 42_448_896),
        ("roberta-base", 3, 128, 204, 28_237_824),
        ("roberta-large", 2, 256, 409, 150_847_488),
        ("llama-2-7b", 2, 1024, 1492, 3_237_117_952),
        ("llama-2-7b", 3, 682, 995, 2_157_862_912),
    ],
)
def test_ranks_and_weights_are_those_of_the_released_rule(model, ratio, attention, feedforward, weights):
    geometry = Geometry.from_config(SIZES[model])
    assert (ranks(geometry, ratio)["q"], ranks(geometry, ratio)["up"]) == (attention, feedforward)
    assert projection_weights(geometry, ratio) == weights


@pytest.mark.parametrize("family", ["roberta", "bert", "deberta", "llama"])
def test_a_compressed_model_has_the_pairs_that_were_counted_and_keeps_the_rest(backbone, family):
    found = backbone(family)
    before = {path: weight.clone() for path, weight in found.model.named_parameters()}
    compress(found.model, found.geometry, ranks(found.geometry, 2.0))
    pairs = {path: module for path, module in found.model.named_modules() if type(module) is nn.Sequential}
    matrices = [weight for path, weight in found.model.named_parameters() if path.endswith((".0.weight", ".1.weight"))]
    assert len(pairs) == 2 * len(found.geometry.architecture.modules)
    assert sum(weight.numel() for weight in matrices) == projection_weights(found.geometry, 2.0)
    for path, weight in found.model.named_parameters():
        if not path.endswith((".0.weight", ".1.weight")):
            assert torch.equal(weight, before[path.replace(".1.bias", ".bias")])


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_pair_is_the_best_approximation_of_its_rank(inputs, outputs, data):
    rank = data.draw(st.integers(1, min(inputs, outputs)))
    torch.manual_seed(7 * inputs + outputs)
    linear = nn.Linear(inputs, outputs)
    first, second = low_rank_pair(linear, rank)
    left, values, right = torch.linalg.svd(linear.weight.double(), full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    assert_close((second.weight @ first.weight).double(), best, atol=1e-5, rtol=1e-5)
    assert_close(first.weight @ first.weight.T, second.weight.T @ second.weight, atol=1e-5, rtol=1e-5)
    assert torch.equal(second.bias, linear.bias)


def test_compressing_draws_no_random_numbers(backbone):
    found, state = backbone("roberta"), torch.get_rng_state()
    compress(found.model, found.geometry, ranks(found.geometry, 2.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_perturbation_is_of_the_entry_that_changed_most():
    torch.manual_seed(0)
    model = nn.Module()
    model.pair = low_rank_pair(nn.Linear(6, 5), 2)
    original = torch.randn(5, 6)
    loss = perturbation(model, {"pair": original}, 0.25)
    change = (model.pair[1].weight @ model.pair[0].weight - original).detach()
    assert float(loss) == pytest.approx((float(change.abs().max()) - 0.25) ** 2, rel=1e-5)
    loss.backward()
    row, column = divmod(int(change.abs().argmax()), 6)
    assert [bool(line.any()) for line in model.pair[1].weight.grad] == [i == row for i in range(5)]
    assert [bool(line.any()) for line in model.pair[0].weight.grad.T] == [i == column for i in range(6)]
