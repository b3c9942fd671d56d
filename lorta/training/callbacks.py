"""What looks on while a trainer trains: counts of its batches, times of its steps, and the best epoch's weights.

All three are part of a checkpoint (`lorta.training.checkpoint.Stateful`).
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lorta.records.store import PROGRESS_NAME, write_atomically
from lorta.system.run_log import RUN
from lorta.training.metering import synchronise

WARMUP_STEPS = 3  # not timed: allocation, autotuning
PROGRESS_EVERY_S = 0.5
LINES = 20  # about the progress of a run in its log
HISTORY_NAME = "history.jsonl"
ROUNDING = 1e-9  # of a share of steps


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number. `step` is the optimiser step at which that was seen."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training loss is {loss} at step {step}: lower trainer.learning_rate")
        self.step = step


class CountingCollator:
    """Calls a collator, and counts rows, tokens and positions of the batches that it makes.

    A collator that draws at random has `state_dict()` and `load_state_dict(state)`, of plain values, for checkpoints.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collate = collate
        self.rows = self.tokens = self.positions = self.batches = 0
        self._before = self._now()  # without the last batch

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """Return the collator's batch of `features`; its attention_mask tells tokens from padding."""
        self._before = self._now()
        batch = self.collate(features)
        self.batches += 1
        self.rows += len(features)
        if "attention_mask" in batch:
            self.tokens += int(batch["attention_mask"].sum())
            self.positions += batch["attention_mask"].numel()
        return batch

    def state(self, batches: int) -> dict[str, Any]:
        """Return the state after the first `batches`, all or all but the last one: counts, and the collator's own.

        Loaders are a batch ahead of training, except at the end of an epoch.
        """
        return self._now() if batches == self.batches else self._before

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.rows, self.tokens, self.positions, self.batches = state["counts"]
        if "drawn" in state:
            getattr(self.collate, "load_state_dict")(state["drawn"])  # noqa: B009  only collators that draw have it

    def _now(self) -> dict[str, Any]:
        draws = getattr(self.collate, "state_dict", None)
        own = {} if draws is None else {"drawn": draws()}
        return {"counts": (self.rows, self.tokens, self.positions, self.batches), **own}


class Watch(TrainerCallback):
    """Times steps, stops on NaN, and leaves progress and losses in files of the run for whoever watches the sweep."""

    def __init__(self, folder: Path, collator: CountingCollator) -> None:
        self.folder, self.collator = folder, collator
        self.step_seconds: list[float] = []
        self.batches = 0  # trained on
        self._begun = self._reported = 0.0
        self._part = -1  # of the run, that the log was told of last
        self._logged: dict[str, float] = {}  # loss and learning rate, as logged last

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the history that grows while the run trains, after a checkpoint with what was logged before it."""
        self._write_history([row for row in state.log_history if "loss" in row], "w")

    def _write_history(self, rows: list[dict[str, Any]], mode: str) -> None:
        """Write for who looks on; the record's history is written at the end, and a full disk is told then."""
        with suppress(OSError), (self.folder / HISTORY_NAME).open(mode, encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps(row)}\n" for row in rows)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the step's clock."""
        self._begun = time.perf_counter()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a batch that others follow in the same step."""
        self.batches += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the step's clock; report at most twice a second."""
        self.batches += 1
        synchronise()
        now = time.perf_counter()
        if state.global_step >= WARMUP_STEPS:
            self.step_seconds.append(now - self._begun)
        if now - self._reported > PROGRESS_EVERY_S:
            self._reported = now
            progress = {"step": state.global_step, "max_steps": state.max_steps, **self._logged}
            write_atomically(self.folder / PROGRESS_NAME, json.dumps(progress), lasting=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Raise TrainingDiverged when the mean loss since the last log is no number."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingDiverged(state.global_step, loss)
        if logs is not None and "loss" in logs:
            self._logged = {name: logs[name] for name in ("loss", "learning_rate") if name in logs}
            self._write_history(state.log_history[-1:], "a")
            self._say_progress(state, loss)

    def _say_progress(self, state: Any, loss: float) -> None:
        """Tell the run's log of the step, at most LINES times a run."""
        part = state.global_step * LINES // max(state.max_steps, 1)
        if part != self._part:
            self._part = part
            rate = state.log_history[-1].get("learning_rate", math.nan)
            RUN.info("step %d of %d, loss %.4g, learning rate %.3g", state.global_step, state.max_steps, loss, rate)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return the times of the steps and the counts of their batches."""
        return {
            "step_seconds": self.step_seconds,
            "batches": self.batches,
            "collator": self.collator.state(self.batches),
        }

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
        self.step_seconds, self.batches = list(state["step_seconds"]), state["batches"]
        self.collator.load_state(state["collator"])


def stop_step(share: float, steps: int) -> int:
    """Return the step that ends a share of so many steps: at least the first."""
    return max(1, math.ceil(share * steps - ROUNDING))


class StopAfter(TrainerCallback):
    """Ends training after a share of its steps, under the schedule of all of them."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask to stop when the share is done."""
        if state.global_step >= stop_step(self.share, state.max_steps):
            control.should_training_stop = True

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return nothing: who goes on may stop elsewhere."""
        return {}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Take nothing back."""


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

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return the best epoch so far and its weights."""
        return {name: getattr(self, name) for name in ("best", "best_epoch", "seconds", "weights")}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
        vars(self).update(state)
