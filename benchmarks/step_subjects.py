"""What `step_cost.py` times: shapes of real models with random weights, and one training step of each method."""

from contextlib import ExitStack
from typing import Any

import peft
import torch
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedModel, RobertaConfig, RobertaModel

from benchmarks.dense_reference import DenseReference
from benchmarks.interleaved import Step
from lorta.geometry import Geometry
from lorta.models.frozen_casts import frozen_casts
from lorta.tuner import LortaConfig

WITHOUT_DROPOUT: dict[str, Any] = {"vocab_size": 1000, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MINILM: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
LLAMA: dict[str, Any] = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
}
SMOLLM2: dict[str, Any] = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
}
SHAPES = {  # (rows, tokens) of a batch; llama: two blocks of TinyLlama-1.1B; without language heads
    "minilm": (BertModel, BertConfig(**MINILM, **WITHOUT_DROPOUT), (16, 64)),
    "roberta-base": (RobertaModel, RobertaConfig(**WITHOUT_DROPOUT), (16, 64)),
    "llama": (LlamaModel, LlamaConfig(**LLAMA, num_hidden_layers=2, vocab_size=1000), (4, 64)),
    "smollm2": (LlamaModel, LlamaConfig(**SMOLLM2, vocab_size=1000), (4, 96)),
}
TASK = "FEATURE_EXTRACTION"  # with a task type, as in runs, PEFT calls the tuner and not the base model itself
METHODS = ("floor", "lora", "lorta", "dense")
HELD = ExitStack()  # casts of frozen weights, to the end of the process


def build(method: str, model: PreTrainedModel, rank: int) -> nn.Module:
    """Return the model to train; the floor trains nothing and lets gradients flow to its inputs."""
    geometry = Geometry.from_config(model.config.to_dict())
    targets = geometry.target_regex("qkvo")
    if method == "lora":
        return peft.get_peft_model(
            model, peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type=TASK)
        )
    if method == "lorta":
        return peft.get_peft_model(model, LortaConfig(r=rank, alpha=float(rank), task_type=TASK))
    if method == "dense":
        places = {path: place for path, _ in model.named_modules() if (place := geometry.locate(path))}
        attention = {path: (layer, "qkvo".index(role)) for path, (layer, (role,)) in places.items() if role in "qkvo"}
        sizes = {"hidden": geometry.hidden, "head_dim": geometry.head_dim, "heads": geometry.heads}
        return DenseReference(model, attention, sizes | {"layers": geometry.layers, "matrices": 4}, rank)
    return model.requires_grad_(False)


def training_step(
    method: str, shape: str, rank: int, device: str, dtype: torch.dtype, autocast: bool = False
) -> tuple[Step, dict[str, int]]:
    """Return one step (forward, backward, AdamW) on random inputs, and what is held from step to step.

    That is the number of trained weights, and the bytes of all weights and of AdamW's two moments. With `autocast`, the
    forward pass computes in bfloat16 on weights of `dtype`, and frozen weights are cast once, as runs do on a CPU; not
    those of the dense algorithm, which reads them.
    """
    torch.manual_seed(0)
    model_class, config, (rows, tokens) = SHAPES[shape]
    model = build(method, model_class(config).to(device, dtype), rank).to(device).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained or [torch.zeros(1, requires_grad=True)])
    inputs = torch.randn(rows, tokens, config.hidden_size, device=device, dtype=dtype, requires_grad=not trained)

    weights = sum(weight.nbytes for weight in model.parameters())
    if autocast and method != "dense":
        HELD.enter_context(frozen_casts(model, "bf16"))

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            hidden = model(inputs_embeds=inputs).last_hidden_state
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    held = weights + 2 * sum(weight.nbytes for weight in trained)
    return step, {"parameters": sum(weight.numel() for weight in trained), "held_bytes": held}
