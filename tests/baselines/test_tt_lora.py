"""TT-LoRA: the update of a matrix is one tensor train."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.loretta.tensor_train import TensorTrainLinear
from baselines.tt_lora.modes import RELEASED_MODES, modes
from baselines.tt_lora.tuner import TensorTrainUpdate, TtLoraConfig

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def train(outputs, inputs, **fields):
    torch.manual_seed(0)
    return TensorTrainUpdate(torch.empty(outputs, inputs), TtLoraConfig(**fields)).double()


def dense(made):
    """The update entry by entry, as the authors contract it: the first mode runs fastest over the inputs."""
    inputs, outputs = math.prod(made.before), math.prod(made.behind)
    matrix = torch.zeros(outputs, inputs, dtype=torch.float64)
    for column in range(inputs):
        vector, rest = torch.ones(1, dtype=torch.float64), column
        for core, mode in zip(made.cores, made.before, strict=False):
            vector = vector @ core[:, rest % mode]
            rest //= mode
        for row in range(outputs):
            product, rest = vector, row
            for place, core in enumerate(made.cores[len(made.before) :], start=1):
                below = math.prod(made.behind[place:])
                product = product @ core[:, rest // below]
                rest %= below
            matrix[row, column] = made.alpha * product.item()
    return matrix


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([12, 7, 30]), st.sampled_from([8, 20]), st.integers(1, 4), st.sampled_from([2, 3, None]))
def test_the_update_is_the_contraction_of_its_cores(inputs, outputs, r, largest):
    made = train(outputs, inputs, r=r, largest_mode=largest)
    x = torch.randn(2, 3, inputs, dtype=torch.float64)
    torch.testing.assert_close(made.delta_weight().detach(), dense(made))
    torch.testing.assert_close(made(x).detach(), x @ dense(made).T)


@pytest.mark.parametrize("r", [1, 5])
def test_the_rank_of_the_update_is_the_bond_in_the_middle(r):
    assert torch.linalg.matrix_rank(train(64, 96, r=r).delta_weight()) == r


def test_two_modes_are_a_lora_with_alpha_in_place_of_alpha_over_r():
    made = train(7, 11, r=3, alpha=5.0)
    assert [tuple(core.shape) for core in made.cores] == [(1, 11, 3), (3, 7, 1)]
    a, b = made.cores[0][0].T, made.cores[1][..., 0].T
    torch.testing.assert_close(made.delta_weight(), 5.0 * b @ a)


def test_every_update_of_loretta_rep_with_the_same_modes_is_one_of_tt_lora():
    """LoRETTA has a train a factor and r as a mode of both; the two cores around it melt into the middle bond."""
    torch.manual_seed(1)
    down = TensorTrainLinear(12, 5, (3, 4, 5), 2, bias=False).double()
    up = TensorTrainLinear(5, 18, (5, 3, 6), 2, bias=False).double()
    made = train(18, 12, r=2, alpha=1.0)
    made.before, made.behind = (3, 4), (3, 6)
    middle = down.cores[2][..., 0] @ up.cores[0][0]  # (2, 2)
    cores = [down.cores[0], down.cores[1] @ middle, up.cores[1], up.cores[2]]
    made.cores = nn.ParameterList(nn.Parameter(core.detach()) for core in cores)
    rows = torch.arange(12).view(3, 4).T.flatten()  # LoRETTA reads the inputs with the last mode fastest
    expected = (down.weight_matrix() @ up.weight_matrix())[rows]
    torch.testing.assert_close(made.delta_weight().T, expected)


@pytest.mark.parametrize(("r", "largest", "norm"), [(5, None, 5**-2.5), (6, 768, 6**-0.5), (1, 768, 1.0)])
def test_the_released_start_has_cores_of_norm_1_and_a_small_update(r, largest, norm):
    """Random cores of norm 1 make an update of norm r^(-1/2) for each bond, here of six and of two modes."""
    made = train(768, 768, r=r, largest_mode=largest, alpha=1.0)
    assert [core.norm().item() for core in made.cores] == pytest.approx([1.0] * len(made.cores))
    assert made.delta_weight().norm().item() == pytest.approx(norm, rel=0.3)


def test_the_other_start_is_no_update():
    assert not train(24, 24, init="zero_last_core").delta_weight().any()


@pytest.mark.parametrize(
    ("rank", "largest", "sizes", "expected"),
    [
        (5, None, BASE, 23_760),  # the authors' script: 990 a matrix
        (1, None, BASE, 3_408),
        (1, 12, BASE, 1_344),
        (1, 3, BASE, 912),
        (2, 12, BASE, 4_608),
        (4, 12, BASE, 16_896),
        (4, None, BASE, 17_664),
        (5, None, LARGE, 49_920),  # 4 x 4 x 8 x 8 and 8 x 8 x 4 x 4 by the rule
    ],
)
def test_the_count_is_the_papers_or_the_formulas(adapter, backbone, rank, largest, sizes, expected):
    base = backbone("roberta", device="meta", **sizes)
    method = adapter("tt_lora", rank, largest_mode=largest)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "tt_lora_" in path)
    assert trained == method.parameters(base.geometry) == expected


def test_released_modes_multiply_to_their_sides():
    for (inputs, outputs), (before, behind) in RELEASED_MODES.items():
        assert (math.prod(before), math.prod(behind)) == (inputs, outputs)
    assert modes(768, 768, 12) == ((8, 8, 12), (12, 8, 8))
