"""The tuners of conf/adapter/ that PEFT does not ship, on a tiny language model or, where they need one, an encoder."""

from functools import cache
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import PeftType

from tests.contract.backbones import ADAPTERS, adapter, backbone, logits, task_type, unsupported


def architecture(name: str) -> str:
    """The first backbone that the adapter attaches to."""
    return next(one for one in ("llama_lm", "llama", "roberta") if unsupported(adapter(name), one) is None)


def config(name: str) -> PeftConfig:
    """The PeftConfig of an adapter, with its targets; other modules that it may train whole are PEFT's business."""
    settings = adapter(name).peft_config(backbone(architecture(name)), task_type(architecture(name)))
    settings.modules_to_save = None
    return settings


def base(name: str) -> Any:
    """A fresh base model, always with the same weights."""
    return backbone(architecture(name)).model


def attach(name: str, seed: int = 1, on: Any = None, settings: PeftConfig | None = None, **arguments: Any) -> PeftModel:
    """The adapter on a base, by default a fresh one, its weights far from their start; `seed` decides them."""
    on, settings = on or base(name), settings or config(name)
    torch.manual_seed(0)
    return fill(get_peft_model(on, settings, **arguments), seed)


def fill(model: PeftModel, seed: int) -> PeftModel:
    """Give all trainable weights other values."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    return model.eval()


@cache
def external() -> list[str]:
    """Names of adapters whose type is no member of PEFT's enum, which a decoder takes.

    Those that are no PEFT tuner are left out; on an encoder, PEFT would train the head whole and refuse mixed batches.
    """
    found = [name for name in ADAPTERS if hasattr(adapter(name), "peft_config") and architecture(name) != "roberta"]
    return [name for name in found if not isinstance(config(name).peft_type, PeftType)]


def base_logits(name: str) -> torch.Tensor:
    """The base model's logits."""
    return logits(base(name))


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two sets of logits differ by rounding only; addresses in memory decide the order of some sums."""
    return torch.allclose(first, second, rtol=1e-4, atol=1e-4)
