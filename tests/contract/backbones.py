"""Tiny backbones of the real classes, and the adapters of conf/adapter/, for laws that every pair must keep."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lorta.api.adapter import Adapter
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF
from lorta.geometry import Geometry, ModelContext
from lorta.models.backbone import Backbone

ADAPTERS = sorted(file.stem for file in (CONF / "adapter").glob("*.yaml"))
ARCHITECTURES = ("roberta", "llama", "llama_lm")
RANK = 4


@cache
def _node(name: str, rank: int, task: str) -> dict[str, Any]:
    problems = Problems()
    (cell,) = compose_cells({"adapter": [name], "rank": [rank], "task": [task]}, CONF, problems)
    assert not problems
    return cell.config["adapter"]


def adapter(name: str, rank: int = RANK, task: str = "glue/sst2") -> Adapter:
    """The adapter as its YAML file describes it for a task."""
    return build(_node(name, rank, task))


def task_type(architecture: str) -> str:
    """PEFT's name of the task that the backbone is for."""
    return "CAUSAL_LM" if architecture == "llama_lm" else "SEQ_CLS"


def unsupported(method: Adapter, architecture: str) -> str | None:
    """Why the adapter cannot attach to the backbone, or None."""
    return method.unsupported(ModelContext(geometry(architecture), task_type(architecture)))


@cache
def geometry(architecture: str) -> Geometry:
    """The geometry of a backbone."""
    return backbone(architecture).geometry


def attach(method: Adapter, architecture: str) -> torch.nn.Module:
    """The adapter around a fresh backbone."""
    return method.attach(backbone(architecture), task_type(architecture))


def backbone(architecture: str) -> Backbone:
    """Two layers of random weights, always the same: a RoBERTa, or a Llama with four query heads and two key heads.

    The Llama comes as a classifier and as a language model.
    """
    torch.manual_seed(0)
    if architecture == "roberta":
        config = RobertaConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=1,
        )
        model = RobertaForSequenceClassification(config)
    else:
        config = LlamaConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=40,
            pad_token_id=1,
        )
        model = (LlamaForCausalLM if architecture == "llama_lm" else LlamaForSequenceClassification)(config)
    with torch.no_grad():  # transformers' 0.02 is so small that differences drown in rounding
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(5.0)
            elif name.endswith("bias"):  # zero in transformers: what multiplies a bias would get no gradient
                parameter.normal_(std=0.1)
    words: Any = SimpleNamespace(mask_token_id=2, all_special_ids=[0, 1, 2])
    return Backbone(
        model.eval(), words, Geometry.from_config(config.to_dict()), rows={"input_ids": batch()["input_ids"].tolist()}
    )


def batch() -> dict[str, torch.Tensor]:
    """Four rows of nine tokens, with labels."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 60, (4, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 0, 1])}


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    """The model's logits on `batch`, in evaluation mode; those of virtual tokens, if it has some, left out."""
    rows = batch()
    found = model.eval()(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
    return found[:, -rows["input_ids"].shape[1] :] if found.dim() == 3 else found


def train_steps(model: torch.nn.Module, adapter: Adapter, steps: int = 3) -> dict[str, float]:
    """Train a few steps with AdamW; return the largest absolute gradient that each trainable parameter ever had."""
    torch.manual_seed(2)
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2, weight_decay=0.0)
    largest = dict.fromkeys(trainable, 0.0)
    model.train()
    rows = batch()
    if any(name.endswith("lm_head") for name, _ in model.named_modules()):
        rows["labels"] = rows["input_ids"]
    for _ in range(steps):
        model(**rows).loss.backward()
        for name, weight in trainable.items():
            assert weight.grad is not None, f"{name} got no gradient"
            largest[name] = max(largest[name], weight.grad.abs().max().item())
        optimizer.step()
        optimizer.zero_grad()
    return largest


def saved(folder: Path, name: str, architecture: str) -> Path:
    """The folder of one pair's saved adapter."""
    return folder / f"{name}-{architecture}"
