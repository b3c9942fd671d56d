"""What the behaviour tests need to know of a tuner: to run another one through them, add it to `TUNERS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from tuner_backbones import PLACES, batch, build_backbone, target_pattern

from lorta.tuner import LortaConfig


@dataclass(frozen=True)
class Request:
    """What a test asks of an adapter, in terms that every tuner knows."""

    backbone: str
    r: int = 3
    alpha: float = 2.0
    roles: str = "qkvo"
    layers: tuple[int, ...] | None = None  # numbers of the blocks to adapt
    dropout: float = 0.0


@dataclass(frozen=True)
class Tuner:
    """One tuner."""

    prefix: str  # begins the name of each container of its weights
    config: Callable[..., PeftConfig]  # config(request, **PEFT's own settings)
    std: float  # of random weights that make updates of about the size of the base weights
    backbones: tuple[str, ...] = ("roberta", "llama", "gpt2", "t5")
    cannot: Mapping[str, str] = field(default_factory=dict)  # name of a test -> why it fails


def _lorta(asked: Request, **settings: Any) -> LortaConfig:
    targets = None if asked.roles == "qkvo" else target_pattern(asked.backbone, asked.roles)
    layers = None if asked.layers is None else list(asked.layers)
    shared = {"r": asked.r, "alpha": asked.alpha, "dropout": asked.dropout}
    return LortaConfig(target_modules=targets, layers_to_transform=layers, **shared, **settings)


def _lora(asked: Request, **settings: Any) -> LoraConfig:
    paths = [place.path for place in PLACES[asked.backbone] if set(place.roles) & set(asked.roles)]
    numbers = range(3) if asked.layers is None else asked.layers
    targets = [path.removeprefix("transformer.").format(number) for path in paths for number in numbers]
    shared = {"r": asked.r, "lora_alpha": asked.alpha, "lora_dropout": asked.dropout}
    return LoraConfig(target_modules=targets, fan_in_fan_out=asked.backbone == "gpt2", **shared, **settings)


ROUNDED = "test_a_float32_adapter_is_not_rounded_by_loading_it_on_a_bfloat16_base"
TUNERS = {
    "lorta": Tuner("lorta_", _lorta, std=0.8),
    "lora": Tuner(  # PEFT's own, as proof that the tests know nothing of LoRTA
        "lora_",
        _lora,
        std=0.3,
        backbones=("roberta", "gpt2"),
        cannot={ROUNDED: "PEFT casts what it loads with low_cpu_mem_usage to the dtype of the base"},
    ),
}
TASKS: dict[str, dict[str, Any]] = {
    "roberta": {"task_type": "SEQ_CLS"},
    "llama": {"task_type": "SEQ_CLS"},
    "gpt2": {"task_type": "SEQ_CLS"},
    "t5": {"task_type": "SEQ_CLS", "modules_to_save": ["classification_head"]},  # PEFT does not know T5's name
    "llama_lm": {"task_type": "CAUSAL_LM"},
    "t5_lm": {"task_type": "SEQ_2_SEQ_LM"},
}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
NAMED = {"wide": {"r": 5}, "narrow": {"r": 2, "roles": "qkv"}}  # two adapters that live side by side
HEADS = {"roberta": "classifier", "llama": "score", "gpt2": "score", "t5": "classification_head"}


@dataclass(frozen=True)
class Pair:
    """A tuner on a backbone, with the steps that most tests take."""

    tuner: Tuner
    backbone: str

    def base(self) -> Any:
        """The backbone, always with the same weights."""
        return build_backbone(self.backbone)

    def config(self, task: Mapping[str, Any] | None = None, **settings: Any) -> PeftConfig:
        """A configuration: `task` are PEFT's own settings, by default those of the backbone's task."""
        known = {"llama_lm": "llama", "t5_lm": "t5"}.get(self.backbone, self.backbone)
        return self.tuner.config(Request(known, **settings), **(TASKS[self.backbone] if task is None else task))

    def attach(self, seed: int | None = 2, base: Any = None, **settings: Any) -> PeftModel:
        """An adapted model with random adapter weights; with `seed=None` as it starts."""
        torch.manual_seed(0)
        model = get_peft_model(self.base() if base is None else base, self.config(**settings)).eval()
        return model if seed is None else self.fill(model, seed=seed)

    def fill(self, model: nn.Module, adapter: str = "default", seed: int = 2) -> Any:
        """Give an adapter random weights."""
        generator = torch.Generator().manual_seed(seed)
        for weight in self.weights(model, adapter).values():
            weight.data.copy_(self.tuner.std * torch.randn(weight.shape, generator=generator))
        return model

    def weights(self, model: nn.Module, adapter: str | None = "default") -> dict[str, nn.Parameter]:
        """The tuner's own weights, without modules to save: of one adapter, or of all."""
        return {
            name: weight
            for name, weight in model.named_parameters()
            if f".{self.tuner.prefix}" in name and (adapter is None or f".{adapter}" in name)
        }

    def layers(self, model: nn.Module) -> dict[str, Any]:
        """The adapted layers by path."""
        return {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}

    def logits(self, model: nn.Module, **arguments: Any) -> Tensor:
        """The model's logits on the fixed batch."""
        with torch.no_grad():
            return model(**batch(self.backbone), **arguments).logits

    def loss(self, model: nn.Module) -> Tensor:
        """The model's loss on the fixed batch."""
        rows = batch(self.backbone)
        labels = rows["input_ids"] if self.backbone == "llama_lm" else torch.tensor([0, 1, 1])
        return model(**rows, labels=labels).loss


def differs(found: Tensor, other: Tensor) -> bool:
    """Whether two outputs are clearly not the same."""
    return bool((found - other).abs().max() > 0.05 * other.abs().max())
