"""PELA: compress a pre-trained model to low rank, pre-train it a little to recover, then fine-tune all of it.

Every projection becomes two (truncated SVD, the roots of the singular values on both sides). The intermediate stage
minimises  L_language + a * mean over blocks MSE(h, h_original) + b * mean over matrices (max |R L - W| - e)^2.
Source: Guo et al. 2023, arXiv:2310.10700; released code guoyang9/PELA, whose models are for images.

The port to text is ours: the stage runs on the task's own training text without its labels, and L_language is the
checkpoint's own loss, masked words or the next word, where the checkpoint has its language head. What comes out is no
adapter but a smaller model: everything in it is trained and stored. Importing this module loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lorta.geometry import Geometry, ModelContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

WEIGHTS_FILE, CARD_FILE = "compressed_model.safetensors", "pela.json"


def ranks(geometry: Geometry, ratio: float) -> dict[str, int]:
    """Return role -> rank: of a pair that has 1 / ratio of the matrix's weights, rounded down; at most its own rank."""
    modules = [geometry.architecture.sharing(role) for role in geometry.architecture.modules]
    shapes = {roles[0]: geometry.module_shapes(roles)[0] for roles in modules}  # fused projections are one matrix
    return {role: min(int(i * o / (ratio * (i + o))), i, o) for role, (i, o) in shapes.items()}


def projection_weights(geometry: Geometry, ratio: float) -> int:
    """Return how many weights all low-rank pairs have together, biases excluded."""
    rank_of = ranks(geometry, ratio)
    pairs = ((rank, geometry.module_shapes(geometry.architecture.sharing(role))) for role, rank in rank_of.items())
    return sum(rank * (inputs + outputs) for rank, shapes in pairs for inputs, outputs in shapes)


@dataclass(frozen=True)
class Pela:
    """Compresses all projections and trains everything. `stage` are the settings of the intermediate pre-training.

    A `backbone` below is an object with a `model`, its `geometry` and `tokenizer`, `rows` (the task's training rows:
    only their input_ids are read), `files` (where its checkpoint is) and `cache` (a folder for what the stage brings);
    the last two may be None.
    """

    name: str
    ratio: float  # weights of a matrix over weights of its pair
    stage: Mapping[str, Any]  # the fields of baselines.pela.stage.Stage
    learning_rate: float
    head_learning_rate: float
    rank: int | None = None  # follows from the ratio, and differs between matrices
    identity_at_start: bool = False  # a compressed model is another function
    reversible: ClassVar[bool] = False  # it trains the backbone itself

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise ValueError(f"{self.name}: ratio must be above 0, got {self.ratio}.")

    def unsupported(self, context: ModelContext) -> str | None:
        """Return the sentence for a ratio that leaves a projection no rank, or for frozen weights, or None."""
        if context.quantization is not None:
            return f"{self.name} trains the model's own weights, and those of {context.quantization} bases are frozen."
        if context.dtype != "fp32":
            return (
                f"{self.name} trains the model's own weights, whose small steps {context.dtype} would round off: set "
                "model.dtype=fp32; trainer.precision=bf16 is fine."
            )
        if context.task_type == "FEATURE_EXTRACTION":
            return f"{self.name} pre-trains a language model, and here that is only a part of the model."
        if context.geometry.architecture.transposed:
            return f"{self.name} compresses nn.Linear, and this model's projections are transformers' Conv1D."
        if context.geometry.model_type == "t5":
            return f"{self.name} makes two layers of each projection, and T5 looks into the last one of a block."
        empty = [role for role, rank in ranks(context.geometry, self.ratio).items() if rank < 1]
        if empty:
            return f"{self.name} at ratio {self.ratio} leaves {', '.join(empty)} no rank: lower adapter.ratio."
        return None

    def parameters(self, geometry: Geometry) -> int | None:
        """Return None: everything trains, and geometry fixes neither vocabulary nor positions."""
        return None

    def attach(self, backbone: Any, task_type: str) -> "nn.Module":
        """Return the compressed model after its intermediate stage, all of it trainable.

        The stage's result is taken from the cache where base weights, text and settings are the same. Raises
        ValueError for a backbone without rows, and for weights that are not float32.
        """
        from copy import deepcopy

        from baselines.pela.low_rank import compress
        from baselines.pela.stage import Stage, recover

        original = deepcopy(backbone.model.base_model)
        compress(backbone.model, backbone.geometry, ranks(backbone.geometry, self.ratio))
        stage = Stage(**self.stage)
        # it belongs to this one model, as PEFT keeps `peft_config` on a model: adapters are shared by runs
        backbone.model.intermediate_stage = recover(backbone, original, self.ratio, stage)
        backbone.model.requires_grad_(True)
        return backbone.model

    def changed_weights(self, model: "nn.Module") -> None:
        """Return nothing: every weight of a compressed model is another one."""

    def callbacks(self) -> "list[TrainerCallback]":
        """Return nothing: what follows the intermediate stage is plain fine-tuning."""
        return []

    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write all weights under their full paths, and where the intermediate stage brought them."""
        import json

        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {path: weight.detach().contiguous() for path, weight in model.named_parameters()}
        save_file(weights, folder / WEIGHTS_FILE)
        card = {"ratio": self.ratio, "intermediate_stage": model.intermediate_stage}
        (folder / CARD_FILE).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, backbone: Any, task_type: str, folder: Path) -> "nn.Module":
        """Return the saved model: a skeleton of the same ranks and the weights. Raises ValueError when they differ."""
        import json

        from safetensors.torch import load_file

        from baselines.pela.low_rank import compress

        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        if card["ratio"] != self.ratio:
            raise ValueError(
                f"{self.name}: {folder} was compressed at ratio {card['ratio']}, not {self.ratio}: "
                f"load it with adapter.ratio={card['ratio']}."
            )
        model = backbone.model
        compress(model, backbone.geometry, ranks(backbone.geometry, self.ratio), approximate=False)
        weights = load_file(folder / WEIGHTS_FILE)
        if different := weights.keys() ^ {path for path, _ in model.named_parameters()}:
            raise ValueError(
                f"{self.name}: {folder / WEIGHTS_FILE} and the model differ in the weights "
                f"{', '.join(sorted(different)[:3])}, ...: load it on the backbone that it was trained on."
            )
        model.load_state_dict(weights, strict=False)  # buffers such as ESM's rotary frequencies are the backbone's
        model.intermediate_stage = card["intermediate_stage"]
        return model.requires_grad_(True)
