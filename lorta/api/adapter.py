"""The protocol of a method.

An adapter is built while a sweep is planned, without torch or PEFT; those are imported when a model is at hand.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lorta.geometry import Geometry, ModelContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from lorta.models.backbone import Backbone


class Adapter(Protocol):
    """One method of fine-tuning: what a class named by `_target_` in conf/adapter has to offer.

    Weights that a method adds do not change the model's output at the start, unless `identity_at_start` is False.

    Example:
        >>> from lorta.api.peft_adapter import PeftAdapter
        >>> adapter: Adapter = PeftAdapter(
        ...     name="lora",
        ...     rank=8,
        ...     learning_rate=1e-3,
        ...     head_learning_rate=1e-3,
        ...     projections=["q", "v"],
        ...     config={"_target_": "peft.LoraConfig", "r": 8},
        ...     param_count={"per_module": "r * (inputs + outputs)"},
        ... )
        >>> adapter.name, adapter.rank, adapter.identity_at_start, adapter.reversible
        ('lora', 8, True, True)
    """

    name: str
    rank: int | None
    identity_at_start: bool
    reversible: bool  # it can be switched off, and the backbone is there again

    def unsupported(self, context: ModelContext) -> str | None:
        """Say why the method cannot attach to such a model for such a task. Nothing is built or loaded.

        Args:
            context: the model's geometry, dtype and quantization, and the task's type.

        Returns:
            One sentence with the reason, or None where it can.
        """
        ...

    def parameters(self, geometry: Geometry) -> int | None:
        """Compute the number of adapter parameters from a closed form, without building the model.

        Args:
            geometry: shapes of the model.

        Returns:
            The number, without head and normalisation layers; None if there is no closed form.
        """
        ...

    def other_parameters(self, geometry: Geometry) -> int | None:
        """Compute the number of weights that are trained besides the method's own and the head.

        Args:
            geometry: shapes of the model.

        Returns:
            The number, for example of all normalisation layers; None if the geometry does not tell. A class without
            this method trains nothing else.
        """
        return 0

    def attach(self, backbone: "Backbone", task_type: str) -> "nn.Module":
        """Attach the method to a backbone.

        Args:
            backbone: the pretrained model with its head, tokenizer and geometry; its model may be changed.
            task_type: PEFT's name, for example SEQ_CLS or CAUSAL_LM.

        Returns:
            The model to train. Exactly the method's weights and the head require a gradient.
        """
        ...

    def callbacks(self) -> "list[TrainerCallback]":
        """Return the work of the method between training steps.

        Returns:
            Callbacks of transformers. One that keeps state has `state_dict(model)` and `load_state_dict(state, model)`.
        """
        ...

    def changed_weights(self, model: "nn.Module") -> int | None:
        """Count the base weights that training has changed.

        Args:
            model: the trained model.

        Returns:
            The number of weights; None for a method that changes none in place.
        """
        ...

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write everything that was trained, as safetensors.

        Args:
            model: the trained model.
            folder: where to write.
        """
        ...

    def load(self, backbone: "Backbone", task_type: str, folder: Path) -> "nn.Module":
        """Build the trained model again.

        Args:
            backbone: a fresh backbone.
            task_type: as for `attach`.
            folder: where `save` wrote.

        Returns:
            The trained model.
        """
        ...
