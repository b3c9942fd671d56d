"""Methods that train weights the model already has: full fine-tuning, BitFit, the head alone.

BitFit: Ben-Zaken et al. 2022, arXiv:2106.10199. Importing this module loads no torch: a sweep is planned with it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorta.geometry import Geometry, ModelContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

SELECTIONS = {  # regular expressions over the full paths of the backbone's parameters
    "everything": r".*",
    "biases": r"(.*\.)?bias",
    "nothing": r"(?!)",
}
WEIGHTS_FILE = "trained_parameters.safetensors"


@dataclass(frozen=True)
class SelectedParameters:
    """Trains the head and one selection of the backbone's own weights. Raises ValueError for an unknown selection.

    A `backbone` below is an object with a `model` and its `geometry`.
    """

    name: str
    selects: str  # a key of SELECTIONS
    learning_rate: float | None  # of the selected weights; None when there are none
    head_learning_rate: float
    rank: int | None = None  # such a method has none
    identity_at_start: bool = True  # no weight is added or changed before training
    reversible: ClassVar[bool] = False  # it trains the backbone itself

    def __post_init__(self) -> None:
        if self.selects not in SELECTIONS:
            raise ValueError(f"{self.name}: selects must be one of {', '.join(SELECTIONS)}, got '{self.selects}'.")

    def unsupported(self, context: ModelContext) -> str | None:
        """Return why the selection is empty on such a model, or cannot be trained there, or None."""
        geometry, quantization = context.geometry, context.quantization
        if self.selects == "nothing" and (context.task_type == "CAUSAL_LM" or not geometry.architecture.head):
            return f"{self.name} trains a classification head, and this task has none: choose another adapter."
        if self.selects != "nothing" and quantization is not None:
            return f"{self.name} trains the model's own weights, and those of {quantization} bases are frozen."
        if self.selects != "nothing" and context.dtype != "fp32":
            return (
                f"{self.name} trains the model's own weights, whose small steps {context.dtype} would round off: set "
                "model.dtype=fp32; trainer.precision=bf16 is fine."
            )
        if self.selects == "biases" and geometry.architecture.biases is False:
            return f"{self.name} trains biases, and {geometry.model_type} has none: choose another adapter."
        return None

    def parameters(self, geometry: Geometry) -> int | None:
        """Return the closed-form count of selected weights, head excluded, or None where geometry does not fix it.

        "everything" depends on the sizes of the vocabulary and of the position table; the biases of some architectures
        on settings that geometry does not hold (deberta-v2: whether relative positions have weights and a norm).
        """
        if self.selects == "nothing" or self.unsupported(ModelContext(geometry)):
            return 0
        if self.selects == "everything" or geometry.architecture.biases is None:
            return None
        projections = sum(geometry.shape(role)[1] for role in geometry.architecture.modules)
        norms = 2 * geometry.hidden  # behind attention and behind the feed-forward block
        outside = geometry.hidden * (geometry.architecture.embedding_norm + geometry.architecture.pooler)
        return geometry.layers * (projections + norms) + outside

    def attach(self, backbone: Any, task_type: str) -> "nn.Module":
        """Return the backbone's model; exactly the selection and the head require a gradient. A head is float32."""
        from lorta.peft_extension.trained_in_float32 import hold_in_float32

        pattern = re.compile(SELECTIONS[self.selects])
        architecture = backbone.geometry.architecture
        for path, parameter in backbone.model.named_parameters():
            parameter.requires_grad_(architecture.in_head(path) or pattern.fullmatch(path) is not None)
        for path, module in backbone.model.named_modules():
            if path in architecture.head:
                hold_in_float32(module, keeps_float32=True)
        return backbone.model

    def changed_weights(self, model: "nn.Module") -> int | None:
        """Return how many of the backbone's weights, head excluded, differ from the checkpoint, which is read again.

        None for a model that was not loaded from a checkpoint.
        """
        trained = {path: weight for path, weight in model.named_parameters() if weight.requires_grad}
        config: Any = model.config
        if not config.name_or_path:
            return None
        head = Geometry.from_config(config.to_dict()).architecture.in_head
        if all(head(path) for path in trained):
            return 0
        loader: Any = type(model)
        revision = getattr(config, "_commit_hash", None) or "main"
        before, report = loader.from_pretrained(
            config.name_or_path,
            revision=revision,
            config=config,
            dtype=config.dtype,
            use_safetensors=True,  # pickled weights are never loaded
            output_loading_info=True,
        )
        drawn = report["missing_keys"]
        return sum(
            int((weight.cpu() != trained[path].detach().cpu()).sum())
            for path, weight in before.named_parameters()
            if path in trained and path not in drawn and not head(path)
        )

    def callbacks(self) -> "list[TrainerCallback]":
        """Return nothing: these methods need no step of their own."""
        return []

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write the trained weights, under their full paths."""
        from safetensors.torch import save_file

        trained = {
            path: weight.detach().contiguous() for path, weight in model.named_parameters() if weight.requires_grad
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained, folder / WEIGHTS_FILE)

    def load(self, backbone: Any, task_type: str, folder: Path) -> "nn.Module":
        """Return the model with the saved weights. Raises ValueError when they are not those that would be trained."""
        from safetensors.torch import load_file

        model = self.attach(backbone, task_type)
        saved = load_file(folder / WEIGHTS_FILE)
        expected = {path for path, weight in model.named_parameters() if weight.requires_grad}
        if expected != saved.keys():
            different = ", ".join(sorted(expected ^ saved.keys())[:3])
            raise ValueError(
                f"{self.name}: {folder / WEIGHTS_FILE} was written for another model or selection; "
                f"present on one side only: {different}. Load it with the model and adapter of its record."
            )
        model.load_state_dict(saved, strict=False)
        return model
