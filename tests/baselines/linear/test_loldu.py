"""LoLDU: the first pivots of a weight's LDU decomposition."""

import pytest
import torch
from peft import PeftModel

from baselines.linear.loldu import LolduConfig, Pivots, pivots

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def matrix(outputs=7, inputs=5):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_all_pivots_and_their_frames_make_the_weight(shape):
    weight = matrix(*shape)
    left, diagonal, right = pivots(weight, min(shape))
    torch.testing.assert_close(left * diagonal @ right, weight)
    torch.testing.assert_close(right.diagonal(), torch.ones(min(shape), dtype=torch.float64))
    assert not right.tril(-1).any()


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_the_update_is_the_change_of_the_scaled_pivots(shape):
    weight, x = matrix(*shape), torch.randn(2, 3, shape[1], dtype=torch.float64)
    made = Pivots(weight, LolduConfig(r=3, alpha=6.0)).double()
    assert not made.delta_weight().any()
    made.pivots.data.normal_()
    made.scale.data.fill_(0.7)
    left, diagonal, right = pivots(weight, 3)
    expected = 0.7 * (left * made.pivots.detach() @ right) - 2.0 * (left * diagonal @ right)
    torch.testing.assert_close(made.delta_weight().detach(), expected)
    torch.testing.assert_close(made(x).detach(), x @ expected.T)


def test_a_pivot_of_zero_and_a_rank_above_the_sides_are_refused():
    with pytest.raises(ValueError, match="one of the first 3 pivots of the weight is 0"):
        pivots(torch.ones(5, 4), 3)
    with pytest.raises(ValueError, match="rank 6 must be at most 5"):
        pivots(matrix(), 6)


def test_a_checkpoint_refuses_another_base_model(adapter, backbone, tokens, randomise, tmp_path):
    model = adapter("loldu", 4).attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    with pytest.raises(ValueError, match="is not that of the base weight"):
        PeftModel.from_pretrained(backbone("roberta", initializer_range=0.2).model, tmp_path)


@pytest.mark.parametrize(("rank", "expected"), [(1, 48), (41, 1_008), (207, 4_992), (768, 18_456)])
def test_the_count_is_a_pivot_a_rank_and_one_scale(adapter, backbone, rank, expected):
    base, method = backbone("roberta", device="meta", **BASE), adapter("loldu", rank)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "loldu_" in path)
    assert trained == method.parameters(base.geometry) == expected
