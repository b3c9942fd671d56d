"""Dynamic Subset Tuning: full fine-tuning that after each step returns to models that differ little from the seed.

Of each group of weights ("silo") the fraction that moved furthest from the seed keeps its values, all others are put
back: which weights differ moves during training. Source: Stahlberg et al. 2024, arXiv:2411.08610, known to us by its
abstract and by summaries. Theirs are the constraint, the silos by module, the selection anew at every step. Ours, and
named so in the YAML, are the distance, what happens to Adam's moments, and the order of ties.

What it saves is storage: a checkpoint holds the differing weights alone. Training costs what full fine-tuning costs
(gradients and moments of every weight) and a copy of the seed besides. Importing this module loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorta.geometry import Geometry, ModelContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

CHOICES = {
    "silos": ("module", "tensor", "layer", "global"),
    "distance": ("absolute", "relative"),
    "moments": ("keep", "clear"),
}


@dataclass(frozen=True)
class DynamicSubset:
    """Trains the head, and everything else so that at most `fraction` of each silo differs from the seed.

    Raises ValueError for a fraction outside (0, 1] and for unknown choices. A `backbone` below is an object with a
    `model` and its `geometry`.
    """

    name: str
    fraction: float  # the paper's epsilon
    silos: str  # whose weights compete: of a module, a tensor, a numbered layer, or all
    distance: str  # from the seed: |p - s|, or |p - s| / (|s| + 1e-3)
    moments: str  # of weights put back: Adam keeps them, or they are set to zero
    learning_rate: float
    head_learning_rate: float
    rank: int | None = None  # the fraction is its knob
    identity_at_start: bool = True  # no weight is added or changed before training
    reversible: ClassVar[bool] = False  # it trains the backbone itself

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"{self.name}: fraction must be above 0 and at most 1, got {self.fraction}.")
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(f"{self.name}: {key} must be one of {', '.join(known)}, got '{getattr(self, key)}'.")

    def unsupported(self, context: ModelContext) -> str | None:
        """Return the sentence for weights that are frozen, or None: every other model has some to train."""
        if context.quantization is not None:
            return f"{self.name} trains the model's own weights, and those of {context.quantization} bases are frozen."
        if context.dtype != "fp32":
            return (
                f"{self.name} trains the model's own weights, whose small steps {context.dtype} would round off: set "
                "model.dtype=fp32; trainer.precision=bf16 is fine."
            )
        return None

    def parameters(self, geometry: Geometry) -> int | None:
        """Return None: all weights train, and geometry fixes neither vocabulary nor positions."""
        return None

    def attach(self, backbone: Any, task_type: str) -> "nn.Module":
        """Return the backbone's model, all of it trainable, with its seed. Raises ValueError for rounded weights."""
        import torch

        from baselines.dynamic_subset.projection import MovingSubset

        heads = backbone.geometry.architecture.head
        for path, weight in backbone.model.named_parameters():
            if weight.dtype != torch.float32:
                raise ValueError(
                    f"{self.name} needs float32 weights, {path} is {weight.dtype}: small steps would not move it, and "
                    "distances would come in steps. Set model.dtype=fp32; trainer.precision=bf16 is fine."
                )
            weight.requires_grad_(True)
        # its state belongs to this one model, as PEFT keeps `peft_config` on a model: adapters are shared by runs
        backbone.model.moving_subset = MovingSubset(backbone.model, heads, self.fraction, self.silos, self.distance)
        return backbone.model

    def callbacks(self) -> "list[TrainerCallback]":
        """Return the projection that follows every optimizer step."""
        from baselines.dynamic_subset.projection import Projection

        return [Projection(clear_moments=self.moments == "clear")]

    def changed_weights(self, model: "nn.Module") -> int:
        """Return how many weights differ from the seed, head excluded."""
        return model.moving_subset.changed(model)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write a PEFT adapter: positions and new values of the differing weights, and the head."""
        from baselines.dynamic_subset.tuner import DynamicSubsetConfig, save_difference

        subset: Any = model.moving_subset
        config = DynamicSubsetConfig(
            task_type="SEQ_CLS" if subset.heads else None,
            modules_to_save=list(subset.heads) or None,
            fraction=self.fraction,
            silos=self.silos,
            distance=self.distance,
            moments=self.moments,
        )
        save_difference(model, subset.seed, config, folder)

    def load(self, backbone: Any, task_type: str, folder: Path) -> "nn.Module":
        """Return the model with the saved weights in it: read by PEFT, merged, and free of wrappers again."""
        import peft

        import baselines.dynamic_subset.tuner  # noqa: F401  registers the type that PEFT is about to meet

        model = self.attach(backbone, task_type)
        subset = model.moving_subset
        loaded: Any = peft.PeftModel.from_pretrained(model, str(folder))
        model = loaded.merge_and_unload()
        for weight in model.parameters():
            weight.requires_grad_(True)
        model.moving_subset = subset
        return model
