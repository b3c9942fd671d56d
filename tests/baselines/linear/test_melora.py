"""MELoRA: mini LoRAs side by side."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model

from baselines.linear.melora import MeloraConfig, MiniLoras
from lorta.geometry import ModelContext

MODELS = ["roberta", "llama"]


def branch(outputs, inputs, **fields):
    """A branch in float64 whose weights are all random."""
    made = MiniLoras(torch.empty(outputs, inputs), MeloraConfig(**fields)).double()
    torch.nn.init.normal_(made.down)
    torch.nn.init.normal_(made.up)
    return made


def dense(made, alpha):
    """The update by plain loops over mini LoRAs."""
    n, rank, width = made.down.shape
    height = made.up.shape[1]
    matrix = torch.zeros(n * height, n * width, dtype=torch.float64)
    for i in range(n):
        block = alpha / rank * made.up[i].detach() @ made.down[i].detach()
        matrix[i * height : (i + 1) * height, i * width : (i + 1) * width] = block
    return matrix


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_the_update_is_the_block_diagonal_matrix_of_the_mini_loras(n, rank, height, width, seed):
    torch.manual_seed(seed)
    made = branch(n * height, n * width, n=n, r=rank, alpha=3.0)
    x = torch.randn(2, 3, n * width, dtype=torch.float64)
    torch.testing.assert_close(made.delta_weight(), dense(made, 3.0))
    torch.testing.assert_close(made(x), x @ dense(made, 3.0).T)


def test_the_rank_of_the_update_is_n_times_the_mini_rank():
    torch.manual_seed(0)
    assert torch.linalg.matrix_rank(branch(40, 32, n=4, r=5).delta_weight()) == 20


def test_every_mini_lora_starts_within_the_bound_of_its_own_inputs():
    torch.manual_seed(0)
    made = MiniLoras(torch.empty(64, 256), MeloraConfig(n=4, r=8))
    assert float(made.down.abs().max()) == pytest.approx(1 / 8, rel=0.01)  # 1 / sqrt(256 / 4)
    assert not made.up.any()


@pytest.mark.parametrize("family", MODELS)
def test_one_mini_lora_is_lora(backbone, tokens, family):
    """Same weights: same output and gradients, before and after both are trained for two steps."""
    ours, theirs = backbone(family), backbone(family)
    targets = ours.geometry.target_regex(["q", "v"])
    config = MeloraConfig(n=1, r=3, alpha=16.0, target_modules=targets)
    melora = get_peft_model(ours.model, config)
    lora = get_peft_model(theirs.model, LoraConfig(r=3, lora_alpha=16, target_modules=targets))
    pairs = []
    for layer, other in zip(layers(melora, "melora_branch"), layers(lora, "lora_A"), strict=True):
        made = layer.melora_branch["default"]
        pairs += [(made.down, other.lora_A["default"].weight), (made.up, other.lora_B["default"].weight)]
    for mine, other in pairs:
        mine.data = torch.randn(other.shape)[None]
        other.data = mine.data[0].clone()
    assert len(pairs) == 2 * 2 * 2
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (melora, lora)]
    for _ in range(2):
        outputs = [model(tokens, labels=torch.tensor([0, 1, 0])) for model in (melora, lora)]
        torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
        for optimizer, output in zip(optimizers, outputs, strict=True):
            optimizer.zero_grad()
            output.loss.backward()
        for mine, other in pairs:
            assert other.grad.any()
            torch.testing.assert_close(mine.grad[0], other.grad, rtol=1e-4, atol=1e-6)
        for optimizer in optimizers:
            optimizer.step()


def layers(model, attribute):
    return [module for module in model.modules() if hasattr(module, attribute)]


@pytest.mark.parametrize(
    ("rank", "n", "hidden", "depth", "expected"),
    [(1, 8, 768, 12, 36_864), (2, 4, 768, 12, 73_728), (8, 2, 768, 12, 294_912), (1, 8, 1024, 24, 98_304)],
)
def test_the_count_is_that_of_one_lora_of_the_mini_rank(adapter, backbone, rank, n, hidden, depth, expected):
    sizes = {"hidden_size": hidden, "num_hidden_layers": depth, "num_attention_heads": hidden // 64}
    base, method = backbone("roberta", device="meta", **sizes), adapter("melora", rank, n=n)
    model = method.attach(base, "SEQ_CLS")
    trained = sum(weight.numel() for path, weight in model.named_parameters() if "melora_" in path)
    assert trained == method.parameters(base.geometry) == expected


def test_a_number_that_does_not_divide_is_refused_in_a_sentence(adapter, backbone):
    base = backbone("llama")
    assert adapter("melora", n=5).unsupported(ModelContext(base.geometry)) == (
        "melora cannot attach to llama: n must divide the inputs and the outputs of every matrix."
    )
    assert adapter("melora", n=4).unsupported(ModelContext(base.geometry)) is None
    with pytest.raises(ValueError, match=r"q_proj': MELoRA's n = 5 must divide 32 inputs and 24 outputs"):
        adapter("melora", n=5).attach(base, "SEQ_CLS")


@pytest.mark.parametrize(("fields", "message"), [({"r": 0}, "r must be at least 1, got 0"), ({"n": -1}, "n must be")])
def test_a_wrong_setting_is_refused_with_its_value(fields, message):
    with pytest.raises(ValueError, match=f"MeloraConfig.{message}"):
        MeloraConfig(**fields)


def test_two_adapters_switch_and_merge_leaves_a_plain_model(backbone, tokens, randomise):
    base = backbone("roberta")
    targets = base.geometry.target_regex(["q", "v"])
    config = {"target_modules": targets, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    model = get_peft_model(base.model, MeloraConfig(**config)).eval()
    randomise(model)
    first = model(tokens).logits
    model.add_adapter("other", MeloraConfig(n=4, r=1, **config))
    model.set_adapter("other")
    assert all(".other." in path for path, weight in model.named_parameters() if weight.requires_grad)
    model.set_adapter("default")
    assert torch.equal(model(tokens).logits, first)
    model.delete_adapter("other")
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(tokens).logits, first, rtol=1e-4, atol=1e-4)
    assert not [path for path, _ in merged.named_parameters() if "melora" in path]


def test_a_checkpoint_loads_with_little_memory(backbone, tokens, randomise, tmp_path):
    base = backbone("roberta")
    model = get_peft_model(base.model, MeloraConfig(target_modules=base.geometry.target_regex(["q", "v"]))).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path, low_cpu_mem_usage=True)
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits)


def test_mini_loras_keep_float32_under_a_bf16_model(adapter, backbone, tokens):
    expected = backbone("roberta", dtype=torch.bfloat16).model(tokens).logits
    model = adapter("melora", 4).attach(backbone("roberta", dtype=torch.bfloat16), "SEQ_CLS").eval()
    torch.testing.assert_close(model(tokens).logits, expected.float(), rtol=0, atol=0.01)  # the head is float32
    assert {weight.dtype for path, weight in model.named_parameters() if "melora_" in path} == {torch.float32}
