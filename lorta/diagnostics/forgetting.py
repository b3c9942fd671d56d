"""How much of what a backbone knew is lost: its loss on text like that of its pre-training, before and after training.

A language model is asked as it is. A classifier has lost the head that spoke: the checkpoint's own language head, as it
was, is put on the trained layers, and on untouched ones for the loss before. Adapters and full fine-tuning are so
compared in what their layers still say; the head itself never moved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lorta.api.task import DataSplits
from lorta.config.settings import RunSettings
from lorta.diagnostics.corpus import IGNORED, BaseText, Objective, read_base_text
from lorta.diagnostics.errors import NotMeasured
from lorta.models.backbone import Backbone
from lorta.records.record import RunRecord
from lorta.records.sections import Forgetting

BATCH = 512  # tokens; a large vocabulary's logits of them take less memory than a training step
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (ids, attended) -> logits (rows, positions, tokens)


class ForgettingDiagnostic:
    """The loss of a run's backbone on text like that of its pre-training, before and after training."""

    name = "forgetting"

    def __init__(self, settings: RunSettings, task_type: str) -> None:
        self.settings, self.task_type = settings, task_type
        self._loss_before: float | None = None  # None: it is measured through a language head, with the loss after

    def before(self, backbone: Backbone, device: str) -> None:
        """Read the text, and measure a language model's loss on it. Raises NotMeasured where there is no text."""
        self._text = read_base_text(self.settings, backbone.tokenizer, objective_of(backbone, self.task_type))
        if self.task_type == "CAUSAL_LM":
            with _at(backbone.model, device), _untouched_generators():
                self._loss_before = text_loss(backbone.model, self._text, self.settings.trainer.precision)

    def after(self, record: RunRecord, model: Any, backbone: Backbone, data: DataSplits) -> RunRecord:
        """Return the record with both losses. Raises NotMeasured as `losses_through_head`."""
        text = self._text
        if self._loss_before is None:
            before, after = losses_through_head(model, backbone, text)
        else:
            before, after = self._loss_before, text_loss(model, text, self.settings.trainer.precision)
        measured = Forgetting(
            objective=text.objective,
            text=text.name,
            text_sha256=text.sha256,
            tokens=text.tokens,
            loss_before=before,
            loss_after=after,
        )
        return replace(record, forgetting=measured)


def objective_of(backbone: Backbone, task_type: str) -> Objective:
    """Return how the backbone was pre-trained. Raises NotMeasured for what is no language model with one stack."""
    architecture = backbone.geometry.architecture
    if task_type not in ("SEQ_CLS", "CAUSAL_LM") or architecture.cross:
        raise NotMeasured(f"no loss of text is defined for {backbone.geometry.model_type} in a {task_type} task")
    return "causal" if architecture.causal else "masked"


@torch.no_grad()
def text_loss(model: Any, text: BaseText, precision: str = "fp32") -> float:
    """Return the mean loss of a language model, in nats a predicted token, in evaluation mode.

    `precision` is the run's. Positions of virtual tokens, which prompt methods put in front, are left out.
    """
    model.eval()
    device, total = next(model.parameters()).device, 0.0
    size = max(1, BATCH // text.ids.shape[1])
    for start in range(0, len(text.ids), size):
        part = slice(start, start + size)
        ids, attended, targets = (rows[part].to(device) for rows in (text.ids, text.attended, text.targets))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=ids, attention_mask=attended).logits[:, -ids.shape[1] :]
        chosen = targets != IGNORED
        total += cross_entropy(logits[chosen].float(), targets[chosen], reduction="sum").item()
    return total / text.tokens


def losses_through_head(model: Any, backbone: Backbone, text: BaseText) -> tuple[float, float]:
    """Return the losses before and after training of a classifier, through its checkpoint's own language head.

    `model` is the trained one, made in place from `backbone.model`; both compute in float32. A second copy of the
    checkpoint is in memory meanwhile. Raises NotMeasured for a method whose prompts are no part of the layers, and
    without such a head.
    """
    if is_prompt(model):
        raise NotMeasured("its virtual tokens belong to the classifier's input; a language head does not see them")
    speaking = _with_language_head(backbone, text.objective).to(next(model.parameters()).device)  # pyright: ignore[reportArgumentType]
    before = text_loss(speaking, text)
    trained = getattr(backbone.model, backbone.model.base_model_prefix)
    setattr(speaking, speaking.base_model_prefix, trained)
    return before, text_loss(speaking, text)


def is_prompt(model: Any) -> bool:
    """Return whether a model's adapter is virtual tokens, in PEFT's words prompt learning."""
    return any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values())


def _with_language_head(backbone: Backbone, objective: Objective) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if backbone.files is None:
        raise NotMeasured("the backbone has no checkpoint to take a language head from")
    loader: Any = AutoModelForCausalLM if objective == "causal" else AutoModelForMaskedLM
    model, missing = loader.from_pretrained(
        backbone.files.location,
        revision=backbone.files.revision or "main",
        dtype=backbone.model.dtype,
        use_safetensors=True,  # pickled weights are never loaded
        trust_remote_code=False,
        output_loading_info=True,
    )
    if any(not name.startswith(f"{model.base_model_prefix}.") for name in missing["missing_keys"]):
        raise NotMeasured("the checkpoint holds no language head")
    return model


@contextmanager
def _at(model: Any, device: str) -> Iterator[None]:
    """Have the model on a device, and back where it was: adapters are drawn where the weights they adapt are."""
    was = next(model.parameters()).device
    if was.type == device:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(was)


@contextmanager
def _untouched_generators() -> Iterator[None]:
    here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=here):
        yield
