"""A pre-trained model with a task's head, its tokenizer and its geometry, and how it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorta.geometry import Geometry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorta.models.drawn_weights import lacking, with_drawn_weights
from lorta.models.locate import ModelFiles
from lorta.models.quantization import quantization_settings
from lorta.models.tokenizer import load_tokenizer


@dataclass
class Backbone:
    """A pre-trained model with a task's head, its tokenizer and its geometry; what methods that pre-train need too."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    geometry: Geometry
    files: ModelFiles | None = None  # where the checkpoint is: it may hold more than the model, such as a language head
    rows: Any = None  # the task's tokenised training rows, of which such methods read no label
    cache: Path | None = None  # where they keep what other runs can use
    drawn: tuple[str, ...] = ()  # parameters, head excluded, that the checkpoint lacks: drawn from torch's generator


def padding_id(backbone: Backbone) -> int:
    """Return the token that fills rows up. Raises ValueError for a tokenizer without one."""
    token: Any = backbone.tokenizer.pad_token_id
    if token is None:
        raise ValueError("the tokenizer has no padding token")
    return int(token)


def _torch_dtype(dtype: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]


def load_classifier(files: ModelFiles, labels: int, dtype: str) -> Backbone:
    """Return the model as a sequence classifier with a fresh head (drawn from torch's generator: seed it first).

    A module outside the head that the checkpoint lacks, such as a pooler, becomes part of the head: it is trained and
    saved with it. Raises ValueError when the backbone itself is incomplete.

    `labels` = 1 makes it a regression; `dtype` (fp32 or bf16) is also what a quantised base computes in.
    """
    from transformers import AutoModelForSequenceClassification

    from lorta.peft_extension.registry import keep_4_bit_weights_readable

    tokenizer, geometry = load_tokenizer(files), Geometry.from_config(files.config)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        files.location,
        revision=files.revision or "main",
        num_labels=labels,
        problem_type="regression" if labels == 1 else "single_label_classification",
        quantization_config=quantization_settings(files.quantization, _torch_dtype(dtype), geometry.architecture.head),
        dtype=_torch_dtype(dtype),
        use_safetensors=True,  # pickled weights are never loaded
        trust_remote_code=False,
        output_loading_info=True,
    )
    geometry, drawn = with_drawn_weights(geometry, model, report["missing_keys"], files)
    keep_4_bit_weights_readable(model)
    if model.config.pad_token_id is None:  # decoders: the classifier must know where a row ends
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model, tokenizer, geometry, files, drawn=drawn)


def load_causal_lm(files: ModelFiles, dtype: str, padding_side: Literal["left", "right"] = "right") -> Backbone:
    """Return the model as a causal language model; `dtype` (fp32 or bf16) is also what a quantised base computes in.

    `padding_side` is "right" for training and scoring, "left" for generation in batches. A tokenizer without a padding
    token pads with its end-of-text token: attention and losses go by position, never by this id.
    """
    from transformers import AutoModelForCausalLM

    from lorta.peft_extension.registry import keep_4_bit_weights_readable

    tokenizer = load_tokenizer(files)
    tokenizer.padding_side = padding_side
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        files.location,
        revision=files.revision or "main",
        quantization_config=quantization_settings(files.quantization, _torch_dtype(dtype)),
        dtype=_torch_dtype(dtype),
        use_safetensors=True,  # pickled weights are never loaded
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(lacking(files, report["missing_keys"]))
    keep_4_bit_weights_readable(model)  # no method could train behind weights that an evaluation has packed
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model, tokenizer, Geometry.from_config(files.config), files)
