"""Common training: any transformers or TRL trainer, with separate rates for adapter and head, and what records need."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import find_batch_size
from torch import nn
from transformers import PrinterCallback, Trainer

from lorta.config.settings import TrainerSettings
from lorta.geometry import Architecture
from lorta.system.preemption import defer_preemption
from lorta.training.callbacks import WARMUP_STEPS, BestEpoch, CountingCollator, StopAfter, Watch
from lorta.training.checkpoint import Checkpoints, ResumableTrainer
from lorta.training.context import TrainingContext
from lorta.training.cpu_memory import PeakMemory
from lorta.training.metering import is_head, quantile, synchronise
from lorta.training.row_order import GroupedRows, RandomRows

LOG_EVERY = 10  # optimiser steps
NO_FACTORS: Mapping[str, float] = {}
NO_CLIPPING = 1e9  # measures the norm, changes no gradient


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


class OwnDataOrder(ResumableTrainer):
    """Draws the data order from its own generator: every adapter sees the same batches for the same seed.

    `compute_loss` returns the mean over the rows of a batch, and the loss of an optimiser step is the mean over all of
    its rows, in however many batches they come. A trainer whose `compute_loss` divides by the items of the whole step
    (tokens) says so with `loss_is_scaled_for_ga = True`. TRL's trainers take it as a second base:
    `class Sft(OwnDataOrder, SFTTrainer)`.
    """

    # Left to itself, Trainer guesses from the signature of the model's `forward`, and leaves the division to models
    # that take a count and do not divide by it: the loss of n batches came out n times too large.
    loss_is_scaled_for_ga = False
    shuffle_groups = True  # of rows alike in length; set from the settings
    sort_steps = True  # rows of a step by length, where it is taken in parts; False where a row's place in it matters
    _rows_of_step = 0

    def __init__(self, *positional: Any, args: Any, **given: Any) -> None:
        args._n_gpu = min(args.n_gpu, 1)  # on several, Trainer multiplies the batch by their number (DataParallel)
        super().__init__(*positional, args=args, **given)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Return the batches of an optimiser step, and the count of their items where the loss is divided by it."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._rows_of_step = sum(map(_rows, batches))
        return batches, items if self.loss_is_scaled_for_ga else None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the batch's part of the step's loss, and add its gradient."""
        if not self.loss_is_scaled_for_ga:  # Trainer divides by this number, of batches, which need not be equally long
            self.current_gradient_accumulation_steps = self._rows_of_step / _rows(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        generator = torch.Generator().manual_seed(int(self.args.data_seed or 0))
        parts = self.args.gradient_accumulation_steps
        rows_a_step = self.args.train_batch_size * parts
        if self.args.train_sampling_strategy == "group_by_length":
            return GroupedRows(_lengths(dataset), rows_a_step, self.shuffle_groups, generator)
        sort_steps = parts > 1 and self.sort_steps
        lengths = _lengths(dataset) if sort_steps else [0] * len(dataset)
        return RandomRows(lengths, rows_a_step, sort_steps, generator)


def _lengths(dataset: Any) -> list[int]:
    known = dataset.column_names
    ids = ["input_ids"] if "input_ids" in known else [name for name in known if name.endswith("_ids")]
    columns = [dataset[name][:] for name in ids]  # lists: a Column is slow
    return [sum(map(len, row)) for row in zip(*columns, strict=True)]


def _rows(batch: Any) -> int:
    rows = find_batch_size(batch)
    assert rows is not None, "a batch holds tensors whose first dimension is that of its rows"
    return rows


def parameter_groups(
    model: nn.Module,
    architecture: Architecture,
    settings: TrainerSettings,
    rate_factors: Mapping[str, float] = NO_FACTORS,
) -> list[dict[str, Any]]:
    """Return AdamW's groups: what the method trains, and the head, each with its own rate and decay.

    `rate_factors` map a part of a weight's name to the factor of its learning rate: such weights of the method come in
    groups of their own. Raises ValueError for a factor that meets no weight.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if settings.learning_rate is None and any(not is_head(name, architecture) for name, _ in named):
        raise ValueError("trainer.learning_rate is null but the adapter has weights to train: set a learning rate")
    method = [(name, weight) for name, weight in named if not is_head(name, architecture)]
    head = [weight for name, weight in named if is_head(name, architecture)]
    groups = [
        {"params": weights, "lr": (settings.learning_rate or 0.0) * factor, "weight_decay": settings.weight_decay}
        for factor, weights in _by_rate_factor(method, rate_factors).items()
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


def training_arguments(
    settings: TrainerSettings, seed: int, folder: Path, order_seed: int | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of transformers.TrainingArguments, or of a subclass, that the settings mean."""
    return {
        "output_dir": str(folder / "trainer"),
        "seed": seed,
        "data_seed": seed if order_seed is None else order_seed,
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
    context: TrainingContext,
    make_trainer: MakeTrainer,
    collate: Callable[[list[dict[str, Any]]], Any],
    score: Callable[[], float],
) -> TrainingOutcome:
    """Train what requires a gradient; `score` is called after each epoch when the best epoch is wanted.

    Raises TrainingDiverged when the loss is no number.
    """
    settings, checkpoints = context.settings, context.checkpoints
    architecture = context.backbone.geometry.architecture
    optimizer = torch.optim.AdamW(parameter_groups(model, architecture, settings, context.rate_factors))
    collator = CountingCollator(collate)
    watch, best, memory = Watch(context.folder, collator), BestEpoch(score), PeakMemory()
    extra: list[Any] = [best] if settings.selection == "best" else []
    extra += [] if settings.stop_after is None else [StopAfter(settings.stop_after)]
    parts = {
        "model": model,
        "data_collator": collator,
        "optimizers": (optimizer, None),
        "callbacks": [watch, *context.callbacks, *extra, memory],
    }
    trainer = make_trainer(training_arguments(settings, context.seed, context.folder, context.order_seed), parts)
    trainer.remove_callback(PrinterCallback)
    if isinstance(trainer, OwnDataOrder):
        trainer.shuffle_groups = settings.shuffle_groups
    begun = time.perf_counter()
    try:
        _train(trainer, checkpoints)
    finally:
        memory.stop()
    synchronise()
    seconds = time.perf_counter() - begun + (checkpoints.earlier_seconds if checkpoints else 0.0)
    if best.weights:
        model.load_state_dict(best.weights, strict=False)
    return replace(_outcome(trainer, collator, watch, best, seconds), peak_tensor_bytes=memory.peak_bytes)


def _train(trainer: Trainer, checkpoints: Checkpoints | None) -> None:
    if checkpoints is None:
        trainer.train()
        return
    assert isinstance(trainer, ResumableTrainer), "a task's trainer has OwnDataOrder as its first base"
    checkpoints.follow(trainer)
    with defer_preemption():  # a request to leave waits for the next checkpoint
        trainer.train(resume_from_checkpoint=str(checkpoints.resumed) if checkpoints.resumed else None)


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
