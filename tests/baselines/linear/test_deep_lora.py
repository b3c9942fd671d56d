"""Deep LoRA: the start, the compressed form against the wide one, and the callback inside a real Trainer."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, convert_to_lora, get_peft_model
from tiny_backbones import build_backbone
from transformers import Trainer, TrainingArguments

from baselines.linear.deep_lora import Compression, DeepFactors, DeepLoraConfig, compress, compressed_frames, orthogonal
from lorta.geometry import ModelContext
from lorta.training.trainer import parameter_groups

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LABELS = torch.tensor([0, 1, 0])


def made(outputs, inputs, **fields):
    return DeepFactors(torch.empty(outputs, inputs), DeepLoraConfig(**fields))


def branches(model):
    return [module for module in model.modules() if isinstance(module, DeepFactors)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(2, 4), st.integers(0, 99))
def test_every_factor_starts_as_a_small_semi_orthogonal_matrix(outputs, inputs, rank, depth, seed):
    torch.manual_seed(seed)
    depth, rank = max(depth, 3), min(rank, max(outputs, inputs))
    branch = made(outputs, inputs, r=rank, depth=depth, init_scale=0.1)
    for factor in branch.factors:
        short = factor if factor.shape[0] <= factor.shape[1] else factor.T
        torch.testing.assert_close(short @ short.T, 0.01 * torch.eye(len(short)), rtol=1e-4, atol=1e-6)
    assert torch.linalg.matrix_norm(branch.delta_weight(), ord=2) <= 0.1**depth * 1.001


@pytest.mark.parametrize("form", ["narrow", "compressed"])
@pytest.mark.parametrize(("outputs", "inputs"), [(6, 10), (10, 6), (8, 8)])
def test_forward_is_the_dense_update(form, outputs, inputs):
    torch.manual_seed(0)
    branch = made(outputs, inputs, r=4, form=form)
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter)
    dense = torch.eye(inputs)
    for matrix in branch.matrices():
        dense = matrix.detach() @ dense
    x = torch.randn(2, 3, inputs)
    torch.testing.assert_close(branch(x), x @ dense.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(branch.delta_weight(), dense, rtol=1e-4, atol=1e-4)


def test_depth_two_is_lora_with_a_normal_start(backbone, tokens):
    targets = backbone("roberta").geometry.target_regex(["q", "v"])
    ours = get_peft_model(backbone("roberta").model, DeepLoraConfig(r=3, depth=2, target_modules=targets))
    theirs = get_peft_model(backbone("roberta").model, LoraConfig(r=3, lora_alpha=3, target_modules=targets))
    others = [module for module in theirs.modules() if hasattr(module, "lora_A")]
    torch.manual_seed(4)
    for branch, other in zip(branches(ours), others, strict=True):
        assert not branch.factors[1].any()
        branch.factors[1].data.normal_()
        for factor, name in zip(branch.factors, ("lora_A", "lora_B"), strict=True):
            getattr(other, name)["default"].weight.data = factor.data.clone()
    torch.testing.assert_close(ours.eval()(tokens).logits, theirs.eval()(tokens).logits)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 12), st.integers(4, 12), st.sampled_from([2, 4]), st.integers(0, 99))
def test_frames_hold_the_directions_of_the_gradient_from_both_sides(outputs, inputs, rank, seed):
    torch.manual_seed(seed)
    gradient = torch.randn(outputs, inputs, dtype=torch.float64)
    start = orthogonal(outputs, inputs).double()
    left, right = compressed_frames(gradient, start, rank)
    assert (left.shape, right.shape) == ((outputs, rank), (inputs, rank))
    wide, narrow = (right, left) if inputs >= outputs else (left, right)
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(wide.T @ wide, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(narrow, start @ right if inputs >= outputs else start.T @ left)
    left_vectors, _, right_vectors = torch.linalg.svd(gradient, full_matrices=False)
    top_left, top_right = left_vectors[:, : rank // 2], right_vectors[: rank // 2].T
    reached = (start.T @ top_left, top_right) if inputs >= outputs else (top_left, start @ top_right)
    for directions in reached:
        torch.testing.assert_close(wide @ (wide.T @ directions), directions, rtol=0, atol=1e-6)


def complement_of_the_null_spaces(first_factor, gradient, rank, scale):
    """The released construction of the right frame's projector: full SVDs and the intersection of two null spaces."""
    half, size = rank // 2, len(first_factor)
    u, _, vt = torch.linalg.svd(gradient)
    va, vb = first_factor.T @ u[:, half:] / scale, vt.T[:, half:]
    joint = torch.linalg.svd(torch.cat([va, -vb], dim=1))[2].T
    never_moves = va @ joint[: va.shape[1], size:]
    basis = torch.linalg.svd(never_moves)[0][:, -rank:]
    return basis @ basis.T


def descend(factors, left, right, target, mask, steps, rate, frame_rate):
    """Gradient descent on 0.5 |mask * (left F3 F2 F1 right^T - target)|^2; return the products after every step."""
    weights = [*factors, *((left, right) if left is not None else ())]
    weights = [weight.detach().clone().requires_grad_() for weight in weights]
    rates, path = [rate] * 3 + [frame_rate] * (len(weights) - 3), []
    for _ in range(steps):
        product = weights[2] @ weights[1] @ weights[0]
        product = product if left is None else weights[3] @ product @ weights[4].T
        path.append(product.detach())
        gradients = torch.autograd.grad(0.5 * (mask * (product - target)).square().sum(), weights)
        for weight, gradient, step in zip(weights, gradients, rates, strict=True):
            weight.data -= step * gradient
    return torch.stack(path)


def problem():
    """A rank-2 target of 24 x 24, wide factors at scale 0.1 and the gradient of the weight at their product."""
    torch.manual_seed(0)
    size, scale = 24, 0.1
    u, v, *factors = (
        torch.nn.init.orthogonal_(torch.empty(size, width, dtype=torch.float64)) for width in (2, 2, size, size, size)
    )
    target = u @ torch.diag(torch.tensor([3.0, 2.0], dtype=torch.float64)) @ v.T
    return target, [scale * factor for factor in factors], scale


def test_the_frames_span_what_the_released_construction_spans():
    target, factors, scale = problem()
    product = factors[2] @ factors[1] @ factors[0]
    gradient = product - target
    right = compressed_frames(gradient, product / scale**3, 4)[1]
    first = (factors[2] @ factors[1]).T @ gradient  # of the first factor
    expected = complement_of_the_null_spaces(factors[0], first, 4, scale)
    torch.testing.assert_close(right @ right.T, expected, rtol=0, atol=1e-8)


def run(observed, frame_rate, steps=600):
    """Return the final losses on all entries and the largest gap between the wide and the compressed run."""
    target, factors, scale = problem()
    mask = (torch.rand(target.shape) < observed).double()
    start = factors[2] @ factors[1] @ factors[0]
    left, right = compressed_frames(mask * (start - target), start / scale**3, 4)
    wide = descend(factors, None, None, target, mask, steps, 0.02, 0.0)
    inner = [scale * torch.eye(4, dtype=torch.float64)] * 3
    small = descend(inner, left, right, target, mask, steps, 0.02, frame_rate)
    seen = (mask * (small[-1] - target)).square().sum() / (mask * target).square().sum()
    return float(seen), float((wide - small).abs().max())


def test_the_compressed_form_follows_the_wide_one_with_frozen_frames():
    loss, gap = run(observed=1.0, frame_rate=0.0)
    assert loss < 1e-6
    assert gap < 0.02  # entries of the target are up to 1


def test_hidden_entries_need_frames_that_move():
    """The first gradient of a masked problem does not show the whole subspace."""
    assert run(observed=0.5, frame_rate=0.0, steps=1500)[0] > 1e-2
    assert run(observed=0.5, frame_rate=0.02, steps=1500)[0] < 1e-5


def test_compression_uses_the_gradient_of_the_base_weight(backbone, tokens):
    base = backbone("llama")
    targets = base.geometry.target_regex(["q", "v"])
    model = get_peft_model(base.model, DeepLoraConfig(r=2, form="compressed", target_modules=targets))
    before = [branch.right.detach().clone() for branch in branches(model)]
    trainable = {path for path, weight in model.named_parameters() if weight.requires_grad}
    compress(model, {"input_ids": tokens, "labels": LABELS})
    plain = backbone("llama").model
    plain(tokens, labels=LABELS).loss.backward()
    weights = [getattr(layer.self_attn, name).weight for layer in plain.model.layers for name in ("q_proj", "v_proj")]
    for branch, old, weight in zip(branches(model), before, weights, strict=True):
        assert not torch.allclose(branch.right, old)
        right_vector = torch.linalg.svd(weight.grad)[2][
            0
        ]  # inputs are more than outputs, so the right frame is the orthonormal one
        torch.testing.assert_close(branch.right.T @ branch.right, torch.eye(2), rtol=0, atol=1e-5)
        kept = branch.right @ (branch.right.T @ right_vector)
        torch.testing.assert_close(kept, right_vector, rtol=0, atol=1e-3)
    assert {path for path, weight in model.named_parameters() if weight.requires_grad} == trainable
    assert all(weight.grad is None for weight in model.parameters())


def train(model, folder, callback, rate_factors):
    generator = torch.Generator().manual_seed(3)
    rows = [{"input_ids": torch.randint(3, 48, (7,), generator=generator), "labels": i % 2} for i in range(16)]
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": []}
    arguments = TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **settings)
    rates = SimpleNamespace(learning_rate=1e-2, head_learning_rate=1e-3, weight_decay=0.0, head_weight_decay=0.0)
    groups = parameter_groups(model, build_backbone("roberta").geometry.architecture, rates, rate_factors)
    optimizer = torch.optim.AdamW(groups)
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[callback], optimizers=(optimizer, None))
    trainer.train()


def test_frames_learn_at_a_hundredth_of_the_factors_rate(adapter, backbone, tmp_path):
    method, base = adapter("deep_lora_compressed", 4), backbone("roberta")
    model, start = method.attach(base, "SEQ_CLS"), {}

    class Snapshot(Compression):
        def on_train_begin(self, args, state, control, **kwargs):
            super().on_train_begin(args, state, control, **kwargs)
            start.update({path: weight.detach().clone() for path, weight in model.named_parameters()})

    train(model, tmp_path, Snapshot(method.config), method.rate_factors)
    moved = {path: float((weight - start[path]).abs().max()) for path, weight in model.named_parameters()}
    frames = [size for path, size in moved.items() if path.endswith((".left", ".right"))]
    factors = [size for path, size in moved.items() if ".factors." in path]
    assert len(frames) == 2 * 2 * 2
    assert len(factors) == 2 * 2 * 3
    assert max(frames) < 4 * 1e-4  # four Adam steps of at most the rate
    assert min(factors) > 1e-3


def test_frames_without_a_rate_stay_as_they_were_found(adapter, backbone, tmp_path):
    method, base = adapter("deep_lora_compressed", 4, train_frames=False), backbone("roberta")
    model = method.attach(base, "SEQ_CLS")
    random = [branch.left.clone() for branch in branches(model)]
    compress(model, {"input_ids": torch.arange(3, 24).reshape(3, 7), "labels": LABELS})
    found = [branch.left.clone() for branch in branches(model)]
    train(model, tmp_path, type("Nothing", (Compression,), {"on_train_begin": lambda *a, **k: None})({}), {})
    assert all(torch.equal(branch.left, left) for branch, left in zip(branches(model), found, strict=True))
    assert not any(torch.equal(old, left) for old, left in zip(random, found, strict=True))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("deep_lora", {}, 296_448),
        ("deep_lora", {"depth": 2}, 294_912),
        ("deep_lora_compressed", {}, 299_520),
        ("deep_lora_compressed", {"train_frames": False}, 4_608),
    ],
)
def test_the_count_on_roberta_base_is_the_closed_form(adapter, backbone, name, changes, expected):
    base, method = backbone("roberta", device="meta", **BASE), adapter(name, 8, **changes)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(w.numel() for path, w in model.named_parameters() if "deep_lora_" in path and w.requires_grad)
    assert trained == method.parameters(base.geometry) == expected


def test_a_rank_that_cannot_be_is_refused_in_a_sentence(adapter, backbone):
    geometry = backbone("llama").geometry
    assert "exceeds the larger side" in adapter("deep_lora", 33).unsupported(ModelContext(geometry))
    assert "must be even" in adapter("deep_lora_compressed", 5).unsupported(ModelContext(geometry))
    assert "exceeds a side" in adapter("deep_lora_compressed", 14).unsupported(ModelContext(geometry))
    assert adapter("deep_lora_compressed", 12).unsupported(ModelContext(geometry)) is None
    with pytest.raises(ValueError, match="rank 33 must be at most 32 for 32 inputs and 24 outputs"):
        adapter("deep_lora", 33).attach(backbone("llama"), "SEQ_CLS")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "r must be at least 1, got 0"),
        ({"depth": 1}, "depth must be at least 2, got 1"),
        ({"depth": 2, "form": "compressed"}, "depth must be at least 3, got 2"),
        ({"r": 5, "form": "compressed"}, "r must be even in the compressed form, got 5"),
        ({"form": "wide"}, "form must be one of narrow, compressed, got 'wide'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match=f"DeepLoraConfig.{message}"):
        DeepLoraConfig(**fields)


@pytest.mark.parametrize("name", ["deep_lora", "deep_lora_compressed"])
def test_a_trained_update_is_exported_as_a_lora_of_its_rank(adapter, backbone, tokens, randomise, name):
    model = adapter(name, 4).attach(backbone("roberta"), "SEQ_CLS").eval()
    randomise(model)
    config, state = convert_to_lora(model, 4)
    assert config.r == 4
    for branch, path in zip(branches(model), sorted(key for key in state if "lora_A" in key), strict=True):
        lora = state[path.replace("lora_A", "lora_B")] @ state[path]
        torch.testing.assert_close(lora, branch.delta_weight().detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["deep_lora", "deep_lora_compressed"])
def test_a_bf16_model_keeps_the_tiny_start_in_float32(adapter, backbone, name):
    model = adapter(name, 4).attach(backbone("roberta", dtype=torch.bfloat16), "SEQ_CLS")
    for branch in branches(model):
        assert {weight.dtype for weight in branch.parameters()} == {torch.float32}
        torch.testing.assert_close(branch.factors[1].T @ branch.factors[1], 1e-6 * torch.eye(4), rtol=0, atol=1e-11)


def test_a_checkpoint_carries_found_frames_and_loads_with_little_memory(adapter, backbone, tokens, tmp_path):
    base, method = backbone("roberta"), adapter("deep_lora_compressed", 4, train_frames=False)
    model = get_peft_model(base.model, method.peft_config(base, "FEATURE_EXTRACTION")).eval()
    compress(model, {"input_ids": tokens, "labels": LABELS})
    for branch in branches(model):
        for factor in branch.factors:
            factor.data.add_(0.5)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path, low_cpu_mem_usage=True)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)
