"""SURM: fast products against dense matrices written down entry by entry, and the tuner."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import C3AConfig, PeftModel, get_peft_model

from baselines.linear.surm import (
    STRUCTURES,
    Structured,
    SurmConfig,
    circulant_product,
    kronecker_product,
    low_displacement_product,
    symmetric_toeplitz_product,
)
from lorta.geometry import ModelContext

sizes = st.integers(1, 17)
seeds = st.integers(0, 999)
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def circulant(column):
    size = len(column)
    return torch.stack([torch.stack([column[(i - j) % size] for j in range(size)]) for i in range(size)])


def skew_circulant(column):
    size = len(column)
    rows = [[column[(i - j) % size] * (1 if i >= j else -1) for j in range(size)] for i in range(size)]
    return torch.stack([torch.stack(row) for row in rows])


def toeplitz(column):
    size = len(column)
    return torch.stack([torch.stack([column[abs(i - j)] for j in range(size)]) for i in range(size)])


def draw(seed, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_a_circulant_product_is_the_dense_product(size, seed):
    column, x = draw(seed, size), draw(seed + 1, 2, 3, size)
    torch.testing.assert_close(circulant_product(column, x), x @ circulant(column).T)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_a_symmetric_toeplitz_product_is_the_dense_product(size, seed):
    column, x = draw(seed, size), draw(seed + 1, 2, 3, size)
    torch.testing.assert_close(symmetric_toeplitz_product(column, x), x @ toeplitz(column).T)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 4), seeds)
def test_a_low_displacement_product_is_the_dense_sum_of_products(size, terms, seed):
    columns, skew_columns, x = draw(seed, terms, size), draw(seed + 1, terms, size), draw(seed + 2, 2, 3, size)
    dense = sum(circulant(c) @ skew_circulant(s) for c, s in zip(columns, skew_columns, strict=True))
    torch.testing.assert_close(low_displacement_product(columns, skew_columns, x), x @ dense.T)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), seeds)
def test_a_kronecker_product_is_the_dense_product(left_rows, left_columns, right_rows, right_columns, seed):
    left, right = draw(seed, left_rows, left_columns), draw(seed + 1, right_rows, right_columns)
    x = draw(seed + 2, 2, 3, left_columns * right_columns)
    torch.testing.assert_close(kronecker_product(left, right, x), x @ torch.kron(left, right).T)


def filled(outputs, inputs, **fields):
    """A branch in float64 whose weights are all random."""
    branch = Structured(torch.empty(outputs, inputs), SurmConfig(**fields)).double()
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter)
    return branch


def dense_update(branch, alpha):
    """The update written from the definitions, cropped to the layer's shape."""
    zero, random = branch.zero.detach(), getattr(branch, "random", None)
    if branch.structure == "kronecker":
        return alpha / random.shape[0] * torch.kron(zero, random.detach())
    if branch.structure == "circulant":
        full = circulant(zero[0] if random is None else zero[0] * random[0].detach())
    elif branch.structure == "toeplitz":
        full = toeplitz(zero[0]) @ toeplitz(random[0].detach())
    else:
        pairs = zip(zero, random.detach(), strict=True)
        full = sum(circulant(column) @ skew_circulant(skew) for column, skew in pairs)
    return alpha * full[: branch.outputs, : branch.inputs]


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("structure", STRUCTURES)
@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6), rank=st.integers(1, 3), seed=seeds)
def test_forward_and_merged_weight_are_the_dense_update(structure, product, height, width, rank, seed):
    """Of square and rectangular layers, even and odd."""
    torch.manual_seed(seed)
    inputs, outputs = width * rank, height * rank
    branch = filled(outputs, inputs, structure=structure, r=rank, product=product, alpha=1.5)
    x, expected = draw(seed, 2, 3, inputs), dense_update(branch, 1.5)
    torch.testing.assert_close(branch(x), x @ expected.T)
    torch.testing.assert_close(branch.delta_weight(), expected)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradients_agree_with_finite_differences(structure):
    torch.manual_seed(0)
    branch = filled(4, 6, structure=structure, r=2)
    names, weights = zip(*branch.named_parameters(), strict=True)
    x = draw(0, 3, 6).requires_grad_()

    def call(x, *weights):
        return torch.func.functional_call(branch, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *weights))


def test_no_dense_matrix_is_made_in_forward_and_backward():
    """Nothing kept for the backward pass is as large as the layer's weight."""
    for structure in STRUCTURES:
        branch, kept = filled(512, 512, structure=structure, r=2).float(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            branch(torch.randn(4, 512)).sum().backward()
        assert 0 < max(kept) < 512 * 512 / 8


@pytest.mark.parametrize("r", [8, 16, 32, 64])
def test_the_rank_of_a_kronecker_update_depends_on_the_inner_size(r):
    torch.manual_seed(0)
    sides = min(r, 768 // r)
    assert torch.linalg.matrix_rank(filled(768, 768, structure="kronecker", r=r).delta_weight()) == sides**2


@pytest.mark.parametrize("structure", ["circulant", "toeplitz", "ldr"])
def test_the_rank_of_the_other_structures_is_not_limited(structure):
    torch.manual_seed(0)
    assert torch.linalg.matrix_rank(filled(96, 96, structure=structure).delta_weight()) == 96


def test_one_circulant_column_is_pefts_c3a_with_one_block(backbone):
    """PEFT's C3A kernel acts as the transpose of a circulant of its first column, divided by the inputs."""
    config = C3AConfig(block_size=24, target_modules=["query"], init_weights=False)
    model = get_peft_model(backbone("roberta").model, config)
    layer = next(module for module in model.modules() if hasattr(module, "c3a_kernel"))
    branch = Structured(torch.empty(24, 24), SurmConfig(product=False))
    branch.zero.data = layer.c3a_kernel["default"].detach().reshape(1, 24) / 24
    assert branch.zero.any()
    torch.testing.assert_close(branch.delta_weight().T, layer.get_delta_weight("default"))


@pytest.mark.parametrize(
    ("name", "rank", "changes", "expected"),
    [
        ("surm_circulant", 8, {}, 36_864),
        ("surm_circulant", 8, {"product": False}, 18_432),
        ("surm_toeplitz", 8, {}, 36_864),
        ("surm_ldr", 1, {}, 36_864),
        ("surm_ldr", 8, {}, 294_912),
        ("surm_kronecker", 8, {}, 36_864),
        ("surm_kronecker", 32, {}, 36_864),
    ],
)
def test_the_count_on_roberta_base_is_the_closed_form(adapter, backbone, name, rank, changes, expected):
    base, method = backbone("roberta", device="meta", **BASE), adapter(name, rank, **changes)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "surm_" in path)
    assert trained == method.parameters(base.geometry) == expected


def test_kronecker_refuses_a_rank_that_does_not_divide(adapter, backbone):
    base = backbone("llama")
    assert adapter("surm_kronecker", 16).unsupported(ModelContext(base.geometry)) == (
        "surm_kronecker cannot attach to llama: the rank, one side of a Kronecker factor, must divide the inputs and "
        "the outputs of every matrix."
    )
    with pytest.raises(ValueError, match=r"q_proj': SURM's Kronecker r = 16 must divide 32 inputs and 24 outputs"):
        adapter("surm_kronecker", 16).attach(base, "SEQ_CLS")
    assert all(adapter(f"surm_{other}", 7).unsupported(ModelContext(base.geometry)) is None for other in STRUCTURES[:3])


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_starting_parts_are_those_of_the_released_code(adapter, structure):
    torch.manual_seed(0)
    config = adapter(f"surm_{structure}", 8).config
    branch = Structured(torch.empty(4096, 4096), SurmConfig(**{k: v for k, v in config.items() if k != "_target_"}))
    expected = {"circulant": 1.0, "kronecker": 1 / math.sqrt(3 * 512)}.get(structure, 0.02)  # U(-b, b): b / sqrt(3)
    assert float(branch.random.std()) == pytest.approx(expected, rel=0.05)
    assert not branch.zero.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"structure": "hankel"}, "structure must be one of circulant, toeplitz, ldr, kronecker, got 'hankel'"),
        ({"structure": "ldr", "r": 0}, "r must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match=f"SurmConfig.{message}"):
        SurmConfig(**fields)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_checkpoint_holds_the_vectors_and_the_head_alone_and_loads_with_little_memory(
    adapter, backbone, tokens, randomise, tmp_path, structure
):
    base, method = backbone("roberta"), adapter(f"surm_{structure}", 4)
    model = get_peft_model(base.model, method.peft_config(base, "FEATURE_EXTRACTION")).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path, low_cpu_mem_usage=True)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
    head = sum(weight.numel() for weight in backbone("roberta").model.classifier.parameters())
    numbers = 4 * (method.parameters(base.geometry) + head)
    assert numbers < (tmp_path / "adapter_model.safetensors").stat().st_size < numbers + 3_000


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_bf16_model_is_updated_in_float32(adapter, backbone, tokens, randomise, structure):
    base = backbone("roberta", dtype=torch.bfloat16)
    model = adapter(f"surm_{structure}", 4).attach(base, "SEQ_CLS").eval()
    randomise(model)
    assert model(tokens).logits.isfinite().all()
    assert {weight.dtype for path, weight in model.named_parameters() if "surm_" in path} == {torch.float32}
