"""LoRA-XS, and TinyLoRA, which is a LoRA-XS whose core is an image of u numbers."""

import math

import pytest
import torch
from peft import LoraConfig, PeftModel, TinyLoraConfig, get_peft_model
from peft.tuners.tinylora.layer import TinyLoraLayer
from torch import nn

from baselines.linear.lora_xs import LoraXsConfig, SingularCore
from baselines.linear.singular_frames import singular_frames
from lorta.geometry import ModelContext

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def matrix(outputs=40, inputs=56):
    """A matrix whose singular values fall by a factor of 0.8, so that a random sketch finds the first ones."""
    random = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(random, full_matrices=False)
    return left * 0.8 ** torch.arange(len(values), dtype=torch.float64) @ right


def core(weight, r, **fields):
    return SingularCore(weight, LoraXsConfig(r=r, core_std=1.0, **fields)).double()


@pytest.mark.parametrize(("shape", "rank"), [((40, 56), 3), ((56, 40), 5), ((8, 12), 8)])
def test_frames_are_the_largest_singular_triples(shape, rank):
    weight = matrix(*shape)
    left, values, right = singular_frames(weight, rank)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(values, s[:rank], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        left @ torch.diag(values) @ right, u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank], rtol=0, atol=1e-6
    )
    torch.testing.assert_close(left.T @ left, torch.eye(rank, dtype=torch.float64))


def test_frames_leave_torchs_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    singular_frames(matrix(), 3)
    assert torch.equal(torch.rand(2), expected)


def test_a_rank_above_the_smaller_side_is_refused():
    with pytest.raises(ValueError, match="rank 9 must be at most 8"):
        singular_frames(matrix(8, 12), 9)


def test_the_update_is_the_core_between_the_frames_and_has_the_scale_alpha_over_r():
    weight, x = matrix(), torch.randn(2, 3, 56, dtype=torch.float64)
    made = core(weight, 3, alpha=6.0)
    left, values, right = singular_frames(weight, 3)
    expected = 2.0 * left @ made.core.detach() @ torch.diag(values) @ right
    torch.testing.assert_close(made.delta_weight().detach(), expected)
    torch.testing.assert_close(made(x).detach(), x @ expected.T)


def test_the_cores_gradient_is_that_of_the_weight_seen_from_the_frames():
    weight = matrix()
    made = core(weight, 3, alpha=3.0)
    gradient = matrix() + 1.0
    (made.delta_weight() * gradient).sum().backward()
    left, values, right = singular_frames(weight, 3)
    torch.testing.assert_close(made.core.grad, left.T @ gradient @ right.T @ torch.diag(values))


def test_the_frames_are_pissas():
    """PiSSA's factors B A are the matrix that LoRA-XS has for a core that is the identity."""
    linear = nn.Linear(56, 40, bias=False)
    linear.weight.data = matrix().float()
    made = core(linear.weight.data.clone(), 3, alpha=3.0)
    made.core.data = torch.eye(3, dtype=torch.float64)
    expected = made.delta_weight().detach().float()
    lora = get_peft_model(nn.Sequential(linear), LoraConfig(r=3, init_lora_weights="pissa", target_modules=["0"]))
    layer = lora.base_model.model[0]
    pissa = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    torch.testing.assert_close(pissa.detach(), expected, rtol=0, atol=1e-6)


def tinylora(u, r, weight):
    linear = nn.Linear(*weight.shape[::-1], bias=False, dtype=torch.float64)
    linear.weight.data = weight.clone()
    config = TinyLoraConfig(u=u, r=r, target_modules=["0"], init_weights="uniform", init_v_bound=1.0)
    model = get_peft_model(nn.Sequential(linear), config, autocast_adapter_dtype=False)
    return next(module for module in model.modules() if isinstance(module, TinyLoraLayer))


def test_tinylora_with_unit_projections_is_lora_xs():
    """Its v, read as a matrix R, is the core sqrt(S) R sqrt(S)^-1."""
    weight, r = matrix(), 3
    layer = tinylora(r**2, r, weight)
    layer.tinylora_P["default"] = torch.eye(r**2, dtype=torch.float64).view(r**2, r, r)
    made = core(weight, r, alpha=3.0)
    with torch.no_grad():
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        made.up, made.down = left[:, :r], values[:r, None] * right[:r]
        root = values[:r].sqrt()
        made.core.data = root[:, None] * layer._compute_R("default") / root
    expected = layer.get_delta_weight("default")
    assert (made.delta_weight() - expected).norm() < 1e-5 * expected.norm()  # PEFT's frames are of float32


@pytest.mark.parametrize(("u", "r", "degrees"), [(64, 2, 4), (9, 3, 9), (5, 3, 5)])
def test_tinyloras_update_has_as_many_degrees_of_freedom_as_the_smaller_of_u_and_r_squared(u, r, degrees):
    layer = tinylora(u, r, matrix(8, 12))
    images = [projection.flatten() for projection in layer.tinylora_P["default"]]
    assert torch.linalg.matrix_rank(torch.stack(images)) == degrees


@pytest.mark.parametrize(("u", "r"), [(1, 1), (4, 2), (5, 3), (208, 15), (833, 24)])
def test_tinyloras_rank_follows_u_up_to_the_sides(adapter, backbone, u, r):
    geometry = backbone("roberta").geometry
    fitted = adapter("tinylora", u=u).fitted(geometry)["r"]
    assert (fitted, type(fitted)) == (r, int)
    assert fitted == min(math.ceil(math.sqrt(u)), 24)


@pytest.mark.parametrize(("tying", "groups"), [(0.0, 4), (0.375, 2), (0.5, 2), (0.625, 2), (0.9, 1), (1.0, 1)])
def test_tinyloras_count_follows_its_groups(adapter, backbone, tying, groups):
    """Of 4 matrices, 2.5 and 1.5 groups are rounded to the even number."""
    base, method = backbone("roberta"), adapter("tinylora", u=6, weight_tying=tying)
    model = method.attach(base, "SEQ_CLS")
    trained = {path: weight for path, weight in model.named_parameters() if "tinylora_" in path}
    assert sum(weight.numel() for weight in trained.values()) == method.parameters(base.geometry) == 6 * groups


@pytest.mark.parametrize(
    ("rank", "sizes", "expected"),
    [
        (4, BASE, 768),
        (8, BASE, 3_072),
        (12, BASE, 6_912),
        (16, BASE, 12_288),
        (20, BASE, 19_200),
        (25, BASE, 30_000),
        (4, LARGE, 1_536),
        (8, LARGE, 6_144),
        (12, LARGE, 13_824),
        (16, LARGE, 24_576),  # the released scripts' 25K
        (20, LARGE, 38_400),
        (25, LARGE, 60_000),
    ],
)
def test_the_count_is_r_squared_for_each_of_four_matrices_a_layer(adapter, backbone, rank, sizes, expected):
    base = backbone("roberta", device="meta", **sizes)
    assert adapter("lora_xs", rank).parameters(base.geometry) == expected


def test_a_built_model_has_the_count(adapter, backbone):
    base = backbone("roberta", device="meta", **BASE)
    model = adapter("lora_xs", 16).attach(base, "SEQ_CLS")
    assert sum(weight.numel() for path, weight in model.named_parameters() if "lora_xs_" in path) == 12_288


def test_a_rank_above_the_smaller_side_is_refused_before_anything_is_built(adapter, backbone):
    assert adapter("lora_xs", 25).unsupported(ModelContext(backbone("roberta").geometry)) == (
        "lora_xs cannot attach to roberta: its rank exceeds the smaller side of a matrix, which has no more singular "
        "values."
    )


def test_a_checkpoint_carries_its_frames(adapter, backbone, tokens, randomise, tmp_path):
    """Two machines find other signs for the same singular vectors, here made by hand."""
    model = adapter("lora_xs", 4).attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    for module in model.modules():
        if isinstance(module, SingularCore):
            module.up[:, 1].neg_()
            module.down[1].neg_()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
