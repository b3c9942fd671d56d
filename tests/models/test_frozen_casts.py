"""Frozen weights held in bfloat16: the bits that autocast gives, and nothing left behind."""

import pytest
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lorta.models import frozen_casts as module
from lorta.models.frozen_casts import frozen_casts, keep_casts
from lorta.tuner import LortaConfig

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
TARGETS = {"target_modules": ["q_proj", "v_proj"]}
CONFIGS = {
    "lora": lambda: LoraConfig(r=2, **TARGETS),
    "dora": lambda: LoraConfig(r=2, use_dora=True, **TARGETS),  # reads the weights of its layers
    "vera": lambda: VeraConfig(r=4, **TARGETS),
    "lorta": lambda: LortaConfig(r=2),
}


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))


def _step(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    words = torch.arange(24).view(2, 12) % 50
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=words, labels=words).loss
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    model.zero_grad()
    return loss.detach(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_are_those_of_autocast_bit_by_bit(llama, name):
    model = get_peft_model(llama, CONFIGS[name]())
    torch.manual_seed(1)
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.data.add_(0.1 * torch.randn_like(weight))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss, gradients = _step(model)
    with frozen_casts(model, "bf16"):
        held_loss, held_gradients = _step(model)
    assert torch.equal(loss, held_loss) and len(gradients) == len(held_gradients) > 0
    assert all(map(torch.equal, gradients, held_gradients))
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


@pytest.mark.parametrize("name", CONFIGS)
def test_only_frozen_weights_that_nothing_else_reads_are_held(llama, name):
    """A layer whose adapter may read it, a trained layer and an embedding that is the head stay as they are."""
    model = get_peft_model(llama, CONFIGS[name]())
    base = model.get_base_model().model
    base.layers[1].mlp.up_proj.weight.requires_grad_(True)
    with frozen_casts(model, "bf16"):
        held = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert embedding.dtype == torch.float32 and head.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    parts = {"self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    if name in ("lora", "lorta"):  # they only call their layers
        parts |= {"self_attn.q_proj", "self_attn.v_proj"}
    layers = {name.replace(".base_layer", "").rpartition("layers.")[2] for name in held if "lm_head" not in name}
    assert layers == {f"{layer}.{part}.weight" for layer in (0, 1) for part in parts} - {"1.mlp.up_proj.weight"}


def test_nothing_is_held_in_float32(llama):
    llama.requires_grad_(False)
    with frozen_casts(llama, "fp32"):
        assert {weight.dtype for weight in llama.parameters()} == {torch.float32}


def test_casts_that_were_kept_are_shared_and_others_are_not_taken(llama, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", [])
    keep_casts(llama)
    llama.model.layers[0].mlp.up_proj.weight.data.add_(1.0)  # what a method has changed since
    with frozen_casts(llama, "bf16"):
        held = {weight.data_ptr() for weight in llama.parameters() if weight.dtype == torch.bfloat16}
        assert len(held) == 15
        assert len(held - {kept.data_ptr() for kept in module._KEPT}) == 1
        changed = llama.model.layers[0].mlp.up_proj.weight
        assert changed.float().mean() > 0.9


@pytest.mark.parametrize("change", ("train", "exchange", "add"))
def test_a_weight_that_is_changed_meanwhile_fails_the_run(llama, change):
    llama.requires_grad_(False)
    layer = llama.model.layers[0].mlp.up_proj
    original = layer.weight
    with pytest.raises(RuntimeError, match="1 frozen weights were changed"), frozen_casts(llama, "bf16"):
        if change == "train":
            layer.weight.requires_grad_(True)
        elif change == "exchange":
            layer.weight = nn.Parameter(torch.zeros_like(original), requires_grad=False)
        else:
            layer.weight.data.add_(1.0)
    assert layer.weight is original and original.dtype == torch.float32 and not original.requires_grad


def test_an_error_in_the_block_is_the_one_that_is_seen(llama):
    llama.requires_grad_(False)
    with pytest.raises(KeyError), frozen_casts(llama, "bf16"):
        llama.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
        raise KeyError("x")
    assert llama.model.layers[0].mlp.up_proj.weight.dtype == torch.float32
