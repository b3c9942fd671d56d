"""NOLA: LoRA's factors as mixtures of frozen random matrices."""

import math

import pytest
import torch

from baselines.linear.nola import Mixture, NolaConfig

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def mixture(outputs=7, inputs=11, **fields):
    made = Mixture(torch.empty(outputs, inputs), NolaConfig(**fields)).double()
    with torch.no_grad():
        torch.manual_seed(1)
        made.down.normal_()
        made.up.normal_()
    return made


def test_the_update_is_alpha_over_r_times_the_product_of_two_mixtures():
    made, x = mixture(r=3, k=4, alpha=6.0), torch.randn(2, 3, 11, dtype=torch.float64)
    wide, tall = made.bases("down", 11), made.bases("up", 7)
    a = wide.start.view(3, 11) + sum(made.down[i] * wide.matrices[i].view(3, 11) for i in range(4))
    b = sum(made.up[j] * tall.matrices[j].view(7, 3) for j in range(4))
    torch.testing.assert_close(made.delta_weight(), 2.0 * b @ a)
    torch.testing.assert_close(made(x), x @ (2.0 * b @ a).T)


def test_unit_matrices_make_it_lora():
    """With r * width of them every factor is reached: A - A0 and B are the coefficients themselves."""
    made = mixture(9, 9, r=2, k=18, alpha=2.0)
    for side in ("down", "up"):
        made.bases(side, 9).matrices = torch.eye(18, dtype=torch.float64)
    a, b = made.bases("down", 9).start.view(2, 9) + made.down.view(2, 9), made.up.view(9, 2)
    torch.testing.assert_close(made.delta_weight(), b @ a)


def test_random_matrices_have_the_released_spread_and_the_two_factors_have_others():
    made = mixture(64, 64, r=4, k=16)
    down, up = made.bases("down", 64), made.bases("up", 64)
    assert down.matrices.abs().max().item() == pytest.approx(1 / 4, rel=0.01)  # 1 / sqrt(k)
    assert down.matrices.std().item() == pytest.approx(1 / 4 / math.sqrt(3), rel=0.02)
    assert down.start.abs().max().item() == pytest.approx(1 / 8, rel=0.05)  # LoRA's 1 / sqrt(inputs)
    assert not torch.equal(down.matrices, up.matrices)


def test_layers_of_one_width_share_their_matrices_and_another_seed_has_others(adapter, backbone):
    model = adapter("nola", k=6).attach(backbone("roberta"), "SEQ_CLS")
    layers = [module for module in model.modules() if isinstance(module, Mixture)]
    assert len({id(layer.bases("down", 24)) for layer in layers}) == 1
    first, other = mixture(r=2, k=3), mixture(r=2, k=3, seed=1)
    assert not torch.equal(first.bases("down", 11).matrices, other.bases("down", 11).matrices)


def test_neither_building_nor_running_it_touches_torchs_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    made = Mixture(torch.empty(7, 11), NolaConfig(r=3, k=5))
    made(torch.ones(11)).sum().backward()
    assert torch.equal(torch.rand(2), expected)


def test_at_the_start_only_the_second_factor_has_a_gradient():
    made = Mixture(torch.empty(7, 11), NolaConfig(r=3, k=5))
    made(torch.ones(11)).sum().backward()
    assert not made.down.grad.any()
    assert made.up.grad.all()


@pytest.mark.parametrize(("k", "expected"), [(1, 48), (21, 1_008), (104, 4_992), (417, 20_016)])
def test_the_count_is_two_coefficients_a_random_matrix(adapter, backbone, k, expected):
    base, method = backbone("roberta", device="meta", **BASE), adapter("nola", 4, k=k)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "nola_" in path)
    assert trained == method.parameters(base.geometry) == expected
