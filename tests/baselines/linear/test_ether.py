"""ETHER and ETHER+: reflections of a frozen weight."""

import pytest
import torch
from peft import HRAConfig, get_peft_model
from torch import nn

from baselines.linear.ether import EtherConfig, EtherLayer, Reflection

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
FORMS = [
    {"form": "ether"},
    {"form": "ether", "blocks": 4},
    {"form": "ether_plus"},
    {"form": "ether_plus", "two_sided": True},
    {"form": "ether_plus", "two_sided": True, "blocks": 2},
]


def layer(random=True, **fields):
    torch.manual_seed(0)
    linear = nn.Linear(8, 12, dtype=torch.float64)
    model = get_peft_model(nn.Sequential(linear), EtherConfig(target_modules=["0"], **fields))
    made = next(module for module in model.modules() if isinstance(module, EtherLayer))
    if random:
        for normals in made.parameters():
            if normals.requires_grad:
                normals.data.normal_()
    return made


def dense(reflection):
    """H by its formula, block after block."""
    blocks = []
    for block in range(reflection.normals.shape[1]):
        vectors = reflection.normals[:, block].detach()
        matrix = torch.eye(vectors.shape[1], dtype=torch.float64)
        signs = (-2.0,) if len(vectors) == 1 else (-1.0, 1.0)
        for sign, vector in zip(signs, vectors, strict=True):
            matrix += sign * torch.outer(vector, vector) / vector.dot(vector)
        blocks.append(matrix)
    return torch.block_diag(*blocks)


@pytest.mark.parametrize("fields", FORMS)
def test_the_layer_is_the_base_layer_with_a_reflected_weight(fields):
    made, x = layer(**fields), torch.randn(2, 3, 8, dtype=torch.float64)
    branch, base = made.branch("default"), made.base_layer
    outer = torch.eye(12, dtype=torch.float64) if branch.outer is None else dense(branch.outer)
    weight = outer @ base.weight @ dense(branch.inner)
    torch.testing.assert_close(made(x), x @ weight.T + base.bias)
    torch.testing.assert_close(made.get_delta_weight("default"), (weight - base.weight).detach())


@pytest.mark.parametrize("fields", FORMS)
def test_a_merge_puts_the_reflected_weight_in_and_takes_it_out_again(fields):
    made, x = layer(**fields), torch.randn(2, 3, 8, dtype=torch.float64)
    expected, weight = made(x), made.base_layer.weight.clone()
    made.merge()
    torch.testing.assert_close(made(x), expected)
    torch.testing.assert_close(made.base_layer.weight, weight + made.get_delta_weight("default"))
    made.unmerge()
    torch.testing.assert_close(made.base_layer.weight, weight)
    torch.testing.assert_close(made(x), expected)


def test_ether_is_one_householder_reflection_as_hra_of_rank_1():
    made, x = layer(), torch.randn(2, 3, 8, dtype=torch.float64)
    linear = nn.Linear(8, 12, dtype=torch.float64)
    linear.load_state_dict(made.base_layer.state_dict())
    hra = get_peft_model(nn.Sequential(linear), HRAConfig(r=1, target_modules=["0"]), autocast_adapter_dtype=False)
    hra.base_model.model[0].hra_u["default"].data = made.branch("default").inner.normals.data.view(8, 1).clone()
    torch.testing.assert_close(made(x), hra(x))


def test_ether_is_never_the_identity_and_ether_plus_starts_there():
    assert torch.linalg.matrix_norm(dense(layer(False).branch("default").inner) - torch.eye(8)).item() == pytest.approx(
        2
    )
    assert not layer(False, form="ether_plus", two_sided=True).get_delta_weight("default").any()


def test_the_distance_of_ether_plus_from_the_identity_is_at_most_2():
    distances = []
    for seed in range(50):
        torch.manual_seed(seed)
        side = Reflection(8, EtherConfig(form="ether_plus")).double()
        side.normals.data.normal_()
        distances.append(torch.linalg.matrix_norm(dense(side) - torch.eye(8)).item())
    assert 1.0 < max(distances) <= 2.0


def test_only_one_adapter_is_merged_at_a_time():
    torch.manual_seed(0)
    config = EtherConfig(target_modules=["0"])
    model = get_peft_model(nn.Sequential(nn.Linear(8, 12)), config)
    model.add_adapter("other", config)
    with pytest.raises(ValueError, match="merge one at a time, got default, other"):
        model.merge_adapter(["default", "other"])
    model.merge_adapter(["other"])
    with pytest.raises(ValueError, match="unmerge other first"):
        model.merge_adapter(["default"])


def test_blocks_that_do_not_divide_and_a_two_sided_ether_are_refused():
    with pytest.raises(ValueError, match="blocks = 3 must divide 8 features"):
        layer(blocks=3)
    with pytest.raises(ValueError, match="two_sided is for the form 'ether_plus'"):
        EtherConfig(two_sided=True)


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("ether", BASE, 82_944),  # the paper's 0.09M on DeBERTaV3-base, whose matrices have these sizes
        ("ether_plus", BASE, 331_776),  # 0.33M
        ("ether", LARGE, 221_184),
        ("ether_plus", LARGE, 884_736),
    ],
)
def test_the_count_is_the_papers(adapter, backbone, name, sizes, expected):
    base, method = backbone("roberta", device="meta", **sizes), adapter(name)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "ether_" in path)
    assert trained == method.parameters(base.geometry) == expected
