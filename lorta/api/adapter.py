"""The protocol of a method.

An adapter is built while a sweep is planned, without torch or PEFT; those are imported when a model is at hand.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lorta.geometry import Geometry

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from lorta.models.backbone import Backbone


class Adapter(Protocol):
    """One method of fine-tuning. Weights it adds start so that the model's output is unchanged, unless it says not."""

    name: str
    rank: int | None
    identity_at_start: bool
    reversible: bool  # it can be switched off, and the backbone is there again

    def unsupported(
        self,
        geometry: Geometry,
        task_type: str = "SEQ_CLS",
        quantization: str | None = None,
        gradient_checkpointing: bool = False,
    ) -> str | None:
        """Return why the method cannot attach to such a model for such a task, one sentence, or None."""
        ...

    def parameters(self, geometry: Geometry) -> int | None:
        """Return the closed-form count of adapter weights, head and norms excluded; None where there is no form."""
        ...

    def attach(self, backbone: "Backbone", task_type: str) -> "nn.Module":
        """Return the model to train: exactly the method's weights and the head require a gradient."""
        ...

    def callbacks(self) -> "list[TrainerCallback]":
        """Return what the method must do between training steps."""
        ...

    def changed_weights(self, model: "nn.Module") -> int | None:
        """Return how many base weights differ from the backbone's, None for a method that does not count them."""
        ...

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write what was trained, as safetensors."""
        ...

    def load(self, backbone: "Backbone", task_type: str, folder: Path) -> "nn.Module":
        """Return the trained model: a fresh backbone and what `save` wrote."""
        ...
