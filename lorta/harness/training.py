"""Common training: any transformers or TRL trainer, with separate rates for adapter and head, and what records need."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from lorta.geometry import Architecture
from lorta.harness.cost import is_head, quantile, synchronise
from lorta.harness.peak_memory import PeakMemory
from lorta.harness.spec import TrainerSettings
from lorta.harness.store import PROGRESS_NAME, write_atomically

WARMUP_STEPS = 3  # not timed: allocation, autotuning
LOG_EVERY = 10  # optimiser steps
NO_CLIPPING = 1e9  # measures the norm, changes no gradient
PROGRESS_EVERY_S = 0.5


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number. `step` is the optimiser step at which that was seen."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training loss is {loss} at step {step}: lower trainer.learning_rate")
        self.step = step


@dataclass
class TrainingOutcome:
    """What training leaves besides the weights. Rates are per second of training, evaluation excluded."""

    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    step_s_median: float | None = None
    step_s_p90: float | None = None
    loss_final: float | None = None
    grad_norm_max: float | None = None
    tokens: int = 0
    samples: int = 0
    padded_fraction: float | None = None
    best_epoch: float | None = None
    warmup_steps: int = WARMUP_STEPS
    peak_tensor_bytes: int | None = None  # on a CPU


class CountingCollator:
    """Calls a collator, and counts rows, tokens and positions of the batches that it makes."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collate = collate
        self.rows = self.tokens = self.positions = 0

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """Return the collator's batch of `features`; its attention_mask tells tokens from padding."""
        batch = self.collate(features)
        self.rows += len(features)
        if "attention_mask" in batch:
            self.tokens += int(batch["attention_mask"].sum())
            self.positions += batch["attention_mask"].numel()
        return batch


class OwnDataOrder(Trainer):
    """Draws the data order from its own generator: every adapter sees the same batches for the same seed.

    TRL's trainers take it as a second base: `class Sft(OwnDataOrder, SFTTrainer)`.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        generator = torch.Generator().manual_seed(int(self.args.data_seed or 0))
        if self.args.train_sampling_strategy == "group_by_length":
            known = dataset.column_names
            ids = ["input_ids"] if "input_ids" in known else [name for name in known if name.endswith("_ids")]
            lengths = [sum(map(len, row)) for row in zip(*(dataset[name] for name in ids), strict=True)]
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthGroupedSampler(size, dataset=dataset, lengths=lengths, generator=generator)
        return torch.utils.data.RandomSampler(dataset, generator=generator)


class Watch(TrainerCallback):
    """Times steps, stops on NaN, and leaves the run's progress in a small file for whoever watches the sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.step_seconds: list[float] = []
        self._begun = self._reported = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the step's clock."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the step's clock; report at most twice a second."""
        synchronise()
        now = time.perf_counter()
        if state.global_step >= WARMUP_STEPS:
            self.step_seconds.append(now - self._begun)
        if now - self._reported > PROGRESS_EVERY_S:
            self._reported = now
            progress = {"step": state.global_step, "max_steps": state.max_steps}
            write_atomically(self.folder / PROGRESS_NAME, json.dumps(progress))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Raise TrainingDiverged when the mean loss since the last log is no number."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingDiverged(state.global_step, loss)


class BestEpoch(TrainerCallback):
    """Scores every epoch and keeps the trained weights of the best one (the earliest of equals)."""

    def __init__(self, score: Callable[[], float]) -> None:
        self.score = score
        self.best: float | None = None
        self.best_epoch: float | None = None
        self.seconds = 0.0
        self.weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Score the model as it is now."""
        begun = time.perf_counter()
        value = self.score()
        if self.best is None or value > self.best:
            self.best, self.best_epoch = value, round(float(state.epoch), 3)
            state_dict = model.state_dict(keep_vars=True)
            trained = {name: tensor for name, tensor in state_dict.items() if tensor.requires_grad}
            self.weights = {name: tensor.detach().clone() for name, tensor in trained.items()}
        model.train()
        synchronise()
        self.seconds += time.perf_counter() - begun


def parameter_groups(model: nn.Module, architecture: Architecture, settings: TrainerSettings) -> list[dict[str, Any]]:
    """Return AdamW's groups: what the method trains, and the head, each with its own rate and decay.

    A model's `rate_factors`, if it has any, map a part of a weight's name to the factor of its learning rate: such
    weights of the method come in groups of their own. Raises ValueError for a factor that meets no weight.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if settings.learning_rate is None and any(not is_head(name, architecture) for name, _ in named):
        raise ValueError("trainer.learning_rate is null but the adapter has weights to train: give it a rate")
    method = [(name, weight) for name, weight in named if not is_head(name, architecture)]
    head = [weight for name, weight in named if is_head(name, architecture)]
    groups = [
        {"params": weights, "lr": (settings.learning_rate or 0.0) * factor, "weight_decay": settings.weight_decay}
        for factor, weights in _by_rate_factor(method, getattr(model, "rate_factors", {})).items()
    ]
    groups.append({"params": head, "lr": settings.head_learning_rate, "weight_decay": settings.head_weight_decay})
    return [group for group in groups if group["params"]]


def _by_rate_factor(
    named: list[tuple[str, nn.Parameter]], rate_factors: Mapping[str, float]
) -> dict[float, list[nn.Parameter]]:
    unused = [part for part in rate_factors if not any(part in name for name, _ in named)]
    if unused:
        raise ValueError(f"adapter.rate_factors: no trained weight has {', '.join(unused)} in its name")
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, weight in named:
        factor = next((factor for part, factor in rate_factors.items() if part in name), 1.0)
        groups.setdefault(factor, []).append(weight)
    return groups


def training_arguments(settings: TrainerSettings, seed: int, folder: Path) -> dict[str, Any]:
    """Return the keyword arguments of transformers.TrainingArguments, or of a subclass, that the settings mean."""
    return {
        "output_dir": str(folder / "trainer"),
        "seed": seed,
        "data_seed": seed,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "lr_scheduler_type": settings.lr_scheduler_type if settings.warmup_ratio == 0 else _with_warmup(settings),
        "warmup_steps": settings.warmup_ratio,
        "max_grad_norm": settings.max_grad_norm or NO_CLIPPING,
        "bf16": settings.precision == "bf16",
        "train_sampling_strategy": "group_by_length" if settings.group_by_length else "random",
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": LOG_EVERY,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must be seen, not smoothed over
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _with_warmup(settings: TrainerSettings) -> str:
    return "constant_with_warmup" if settings.lr_scheduler_type == "constant" else settings.lr_scheduler_type


class MakeTrainer(Protocol):
    """Makes a task's trainer, an `OwnDataOrder`, from what is the same for all."""

    def __call__(self, arguments: dict[str, Any], parts: dict[str, Any]) -> Trainer:
        """Take keyword arguments of TrainingArguments, and Trainer's model, data_collator, optimizers, callbacks."""
        ...


def train_model(
    model: nn.Module,
    architecture: Architecture,
    make_trainer: MakeTrainer,
    collate: Callable[[list[dict[str, Any]]], Any],
    settings: TrainerSettings,
    seed: int,
    callbacks: Sequence[TrainerCallback],
    score: Callable[[], float],
    folder: Path,
) -> TrainingOutcome:
    """Train what requires a gradient; `score` is called after each epoch when the best epoch is wanted.

    Raises TrainingDiverged when the loss is no number.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, architecture, settings))
    collator, watch, best, memory = CountingCollator(collate), Watch(folder), BestEpoch(score), PeakMemory()
    extra = [best] if settings.selection == "best" else []
    parts = {
        "model": model,
        "data_collator": collator,
        "optimizers": (optimizer, None),
        "callbacks": [watch, *callbacks, *extra, memory],
    }
    trainer = make_trainer(training_arguments(settings, seed, folder), parts)
    trainer.remove_callback(PrinterCallback)
    begun = time.perf_counter()
    trainer.train()
    synchronise()
    seconds = time.perf_counter() - begun
    if best.weights:
        model.load_state_dict(best.weights, strict=False)
    return replace(_outcome(trainer, collator, watch, best, seconds), peak_tensor_bytes=memory.peak_bytes)


def _outcome(
    trainer: Trainer, collator: CountingCollator, watch: Watch, best: BestEpoch, seconds: float
) -> TrainingOutcome:
    history = [dict(row) for row in trainer.state.log_history if "loss" in row]
    norms = [row["grad_norm"] for row in history if math.isfinite(row.get("grad_norm", math.nan))]
    return TrainingOutcome(
        history=history,
        steps=trainer.state.global_step,
        train_s=seconds - best.seconds,
        eval_s=best.seconds,
        step_s_median=quantile(watch.step_seconds, 0.5),
        step_s_p90=quantile(watch.step_seconds, 0.9),
        loss_final=history[-1]["loss"] if history else None,
        grad_norm_max=max(norms, default=None),
        tokens=collator.tokens,
        samples=collator.rows,
        padded_fraction=1 - collator.tokens / collator.positions if collator.positions else None,
        best_epoch=best.best_epoch,
    )
