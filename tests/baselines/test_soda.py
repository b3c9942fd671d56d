"""SODA: rotations, spectra and the tuner."""

import math
import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from tiny_backbones import build_backbone
from transformers import Trainer, TrainingArguments

from baselines.soda.factors import rotation_sizes
from baselines.soda.rotation import ROTATIONS, Rotation, StiefelAdam, cayley, rotate, skew_matrix
from baselines.soda.tuner import SodaConfig, Spectral, decompose

VARIANTS = ["svd", "qr"]
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LABELS = torch.tensor([0, 1, 0])


def random_weights(module):
    """Give every weight a value; matrices on the manifold stay on it."""
    for parameter in module.parameters():
        if parameter.dim() == 2 and parameter.shape[0] == parameter.shape[1]:
            torch.nn.init.orthogonal_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def filled(model):
    torch.manual_seed(5)
    for branch in branches(model):
        random_weights(branch)
    return model.eval()


def branches(model):
    return [module for module in model.modules() if isinstance(module, Spectral)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_rotating_features_is_multiplying_with_the_kronecker_product(sizes, seed):
    torch.manual_seed(seed)
    matrices = [torch.randn(size, size, dtype=torch.float64) for size in sizes]
    large = matrices[0]
    for matrix in matrices[1:]:
        large = torch.kron(large, matrix)
    x = torch.randn(2, 3, math.prod(sizes), dtype=torch.float64)
    torch.testing.assert_close(rotate(x, matrices), x @ large)


@pytest.mark.parametrize("kind", ["cayley", "expm"])
@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 9), scale=st.floats(0.01, 10.0), seed=st.integers(0, 99))
def test_any_numbers_make_an_orthogonal_matrix(kind, size, scale, seed):
    torch.manual_seed(seed)
    rotation = Rotation([size], kind).double()
    rotation.entries[0].data = scale * torch.randn(size * (size - 1) // 2, dtype=torch.float64)
    matrix = rotation.matrices()[0].detach()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones((), dtype=torch.float64))
    x = torch.randn(4, size, dtype=torch.float64)
    torch.testing.assert_close(rotation.back(rotation(x)).detach(), x)


def test_the_skew_matrix_and_its_cayley_transform_have_the_right_gradient():
    entries = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.equal(skew_matrix(entries, 4), -skew_matrix(entries, 4).T)
    assert torch.autograd.gradcheck(lambda e: cayley(skew_matrix(e, 4)), (entries,))


def test_stiefel_adam_recovers_a_rotation_and_stays_on_the_manifold():
    torch.manual_seed(0)
    target = torch.matrix_exp(skew_matrix(0.3 * torch.randn(15), 6))
    weight, adam = torch.nn.Parameter(torch.eye(6)), StiefelAdam({})
    first = float((weight - target).norm())
    for step in range(1000):
        weight.grad = weight.detach() - target
        adam.step(weight, 0.02 * (1 - step / 1000))
    assert first > 1
    torch.testing.assert_close(weight.detach(), target, rtol=0, atol=1e-3)
    torch.testing.assert_close(weight.detach().T @ weight.detach(), torch.eye(6), rtol=0, atol=1e-5)


def test_one_step_of_stiefel_adam_turns_by_the_rate():
    weight, adam = torch.nn.Parameter(torch.eye(2)), StiefelAdam({})
    weight.grad = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    adam.step(weight, 0.1)
    angle = math.atan(0.1)  # Euler's step I - 0.1 J, projected: Adam's first step has the size of the rate
    expected = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("outputs", "inputs"), [(5, 5), (4, 9), (9, 4)])
def test_a_decomposition_is_the_weight(variant, outputs, inputs):
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs, dtype=torch.float64)
    left, spectrum, right = decompose(weight, variant)
    size = min(outputs, inputs)
    torch.testing.assert_close(right @ right.T, torch.eye(size, dtype=torch.float64))
    assert (spectrum > 0).all()
    if variant == "svd":
        torch.testing.assert_close(left * spectrum @ right, weight)
    else:
        triangular = weight @ right.T
        torch.testing.assert_close(triangular, triangular.tril())
        torch.testing.assert_close(triangular.diagonal(), spectrum)
        torch.testing.assert_close(triangular @ right, weight)


def dense(weight, branch):
    """The adapted weight, written with dense matrices."""
    rotation = torch.eye(1)
    for matrix in branch.rotation.matrices():
        rotation = torch.kron(rotation, matrix.detach())
    left, spectrum, right = decompose(weight, "svd" if branch.rectified else "qr")
    shift = branch.shift.detach()
    if branch.rectified:
        return left @ torch.diag((spectrum + shift).relu()) @ right @ rotation.T
    return (weight @ right.T + left @ torch.diag(shift)) @ right @ rotation.T


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_forward_merged_and_unmerged_weights_are_the_dense_formula(backbone, family, variant, rotation):
    base = backbone(family)
    targets = base.geometry.target_regex(base.geometry.architecture.modules)  # sides longer, shorter and equal
    model = get_peft_model(base.model, SodaConfig(variant=variant, rotation=rotation, target_modules=targets))
    layers = [module for module in filled(model).modules() if hasattr(module, "soda_branch")]
    shapes = [(layer.in_features, layer.out_features) for layer in layers]
    assert all(any(compare(*shape) for shape in shapes) for compare in (operator.lt, operator.eq, operator.gt))
    for layer in layers:
        before, x = layer.get_base_weight().clone(), torch.randn(2, 3, layer.in_features)
        expected = dense(before, layer.branch("default"))
        bias = 0 if layer.base_layer.bias is None else layer.base_layer.bias
        torch.testing.assert_close(layer(x), x @ expected.T + bias, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected - before, rtol=1e-4, atol=1e-4)
        layer.merge(safe_merge=True)
        torch.testing.assert_close(layer.get_base_weight(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected - before, rtol=1e-4, atol=1e-4)
        layer.unmerge()
        torch.testing.assert_close(layer.get_base_weight(), before, rtol=1e-4, atol=1e-4)


def test_merged_singular_values_are_the_rectified_shifted_ones():
    torch.manual_seed(0)
    weight = torch.randn(6, 10, dtype=torch.float64)
    branch = random_weights(Spectral(weight, SodaConfig()).double())
    branch.shift.data = torch.tensor([0.5, -0.5, 0.1, 0.0, -9.0, 1.0], dtype=torch.float64)
    merged = branch.rotation.back(weight + branch.shift_weight())
    expected = (torch.linalg.svdvals(weight) + branch.shift).relu().sort(descending=True).values
    assert expected[-1] == 0
    torch.testing.assert_close(torch.linalg.svdvals(merged), expected)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_start_is_exactly_the_base_model(backbone, tokens, variant, rotation, dtype):
    expected = backbone("roberta", dtype=dtype).model(tokens).logits
    base = backbone("roberta", dtype=dtype)
    config = SodaConfig(variant=variant, rotation=rotation, target_modules=base.geometry.target_regex(["q", "v"]))
    assert torch.equal(get_peft_model(base.model, config).eval()(tokens).logits, expected)


def test_the_released_start_moves_the_spectrum_by_a_thousandth(backbone):
    branch = Spectral(torch.randn(6, 6), SodaConfig(shift_start=1e-3))
    torch.testing.assert_close(branch.spectral_change().detach(), torch.full((6,), 1e-3), rtol=1e-3, atol=0)


def test_released_sizes_and_the_rule_for_others():
    assert rotation_sizes(768) == (6, 8, 16)
    assert rotation_sizes(1024) == (8, 8, 16)
    assert rotation_sizes(3072) == (12, 16, 16)
    assert rotation_sizes(4096) == (16, 16, 16)
    assert rotation_sizes(11008) == (16, 16, 43)
    assert rotation_sizes(7) == (7,)
    assert rotation_sizes(768, {"768": [8, 8, 12]}) == (8, 8, 12)
    with pytest.raises(ValueError, match=r"factors\['768'\] must multiply to 768, got \[8, 8\]"):
        rotation_sizes(768, {"768": [8, 8]})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rotation": "stiefel"}, 26_976),
        ({"rotation": "stiefel", "factors": {"768": [8, 8, 12]}}, 24_960),
        ({"rotation": "stiefel", "factors": {"768": [24, 32]}}, 56_832),
        ({}, 24 * (15 + 28 + 120 + 768)),
        ({"variant": "qr"}, 24 * (15 + 28 + 120 + 768)),
    ],
)
def test_the_count_on_roberta_base_is_the_closed_form(adapter, backbone, changes, expected):
    base, method = backbone("roberta", device="meta", **BASE), adapter("soda", **changes)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(w.numel() for path, w in model.named_parameters() if "soda_" in path and w.requires_grad)
    assert trained == method.parameters(base.geometry) == expected


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_rotations_stay_orthogonal_in_a_trainer(adapter, rotation, tmp_path):
    method = adapter("soda", rotation=rotation)
    model = method.attach(build_backbone("roberta"), "SEQ_CLS")
    generator = torch.Generator().manual_seed(3)
    rows = [{"input_ids": torch.randint(3, 48, (7,), generator=generator), "labels": i % 2} for i in range(16)]
    arguments = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        report_to=[],
        max_steps=40,
        learning_rate=0.05,
    )
    Trainer(model, arguments, train_dataset=rows, callbacks=method.callbacks()).train()
    for branch in branches(model):
        for matrix in branch.rotation.matrices():
            identity = torch.eye(len(matrix))
            torch.testing.assert_close(matrix.T @ matrix, identity, rtol=0, atol=1e-5)
            assert float((matrix - identity).detach().norm()) > 1e-3
        assert float(branch.shift.detach().abs().mean()) > 1e-2


def test_a_checkpoint_is_small_and_loads_only_on_its_own_base_weights(adapter, backbone, tokens, tmp_path):
    base, method = backbone("llama"), adapter("soda")
    model = filled(get_peft_model(base.model, method.peft_config(base, "FEATURE_EXTRACTION")))
    model.save_pretrained(tmp_path)
    for little in (False, True):
        again = PeftModel.from_pretrained(backbone("llama").model, tmp_path, low_cpu_mem_usage=little)
        torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
        assert again.peft_config["default"].factors == {"32": [2, 4, 4]}
    spectra = sum(branch.spectrum.numel() for branch in branches(model))
    numbers = 4 * (method.parameters(base.geometry) + spectra)
    assert numbers < (tmp_path / "adapter_model.safetensors").stat().st_size < numbers + 5_000
    other = backbone("llama").model
    other.model.layers[0].self_attn.q_proj.weight.data.mul_(1.1)
    with pytest.raises(ValueError, match="spectrum' of this SODA checkpoint is not that of the base weight"):
        PeftModel.from_pretrained(other, tmp_path)


def test_adapters_act_and_merge_one_at_a_time(backbone, tokens):
    base = backbone("roberta")
    fields = {"target_modules": base.geometry.target_regex(["q"])}
    model = get_peft_model(base.model, SodaConfig(**fields))
    model.add_adapter("other", SodaConfig(variant="qr", **fields))
    filled(model)
    first = model(tokens).logits
    model.set_adapter("other")
    second = model(tokens).logits
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="SODA adapters merge one at a time, got default, other"):
        model.merge_adapter(["default", "other"])
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ValueError, match="SODA adapters act one at a time, but default, other are active"):
        model(tokens)
    model.set_adapter("other")
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(tokens).logits, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"variant": "lu"}, "variant must be one of svd, qr"), ({"rotation": "householder"}, "rotation must be one of")],
)
def test_a_wrong_setting_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match=f"SodaConfig.{message}"):
        SodaConfig(**fields)
