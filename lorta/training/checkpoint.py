"""Checkpoints from which a run goes on as if it had never stopped: same weights, predictions and history, bit by bit.

What leads up to the first step is repeated from the seed, the adapter's random start included; what has changed since
is restored: trained weights, optimizer, schedule, random generators, order of the rows, counts, the best epoch's
weights, and what the method keeps outside of weights. A method's callback offers that as `state_dict(model)` and
`load_state_dict(state, model)`, both of tensors and plain values; without them its runs have no checkpoints.
"""

import io
import json
import pickle
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy
import torch
from transformers import Trainer, TrainerCallback

from lorta.records.store import write_atomically
from lorta.system.preemption import Preempted, asked_to_leave
from lorta.training.recovery import CARD, newest_checkpoint

TRAINER_STATE, TENSORS = "trainer_state.json", "state.pt"  # the first is Trainer's name


@runtime_checkable
class Stateful(Protocol):
    """What can be part of a checkpoint."""

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return what changed since training began, weights excluded: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Take back what `state_dict` returned; the model has its weights again by then."""
        ...


def stateless(callbacks: Sequence[TrainerCallback]) -> list[str]:
    """Return the names of callbacks that cannot be restored."""
    return [type(callback).__name__ for callback in callbacks if not isinstance(callback, Stateful)]


class Checkpoints(TrainerCallback):
    """Keeps the newest checkpoint of a run in `folder`, one every `steps` optimizer steps or `seconds`, None for never.

    `card` are plain values without which a checkpoint is worthless (the code's commit, versions, the batch): one with
    another card is not used, and `refused` says so. A request to leave makes a checkpoint and raises Preempted.
    """

    def __init__(self, folder: Path, card: Mapping[str, Any], steps: int | None, seconds: float | None) -> None:
        self.folder, self.card, self.steps, self.seconds = folder, dict(card), steps, seconds
        self.refused: str | None = None
        self.resumed: Path | None = self._usable()
        self._parts: dict[str, Stateful] = {}
        self._saved_at = self._begun = time.monotonic()
        self._state: dict[str, Any] = {}
        self.earlier_seconds = 0.0  # of training, before the checkpoint
        if self.resumed is not None:
            self._load(self.resumed)

    @property
    def step(self) -> int | None:
        """The step from which training goes on, None when it starts anew."""
        return int(self.resumed.name) if self.resumed else None

    @property
    def epochs_done(self) -> int:
        """Whole epochs before the checkpoint."""
        return self._state.get("epochs_done", 0)

    def follow(self, trainer: "ResumableTrainer") -> None:
        """Watch over a trainer that is about to train, its other callbacks included."""
        self._trainer, self._begun, self._saved_at = trainer, time.monotonic(), time.monotonic()
        stateful = [item for item in trainer.callback_handler.callbacks if isinstance(item, Stateful)]
        self._parts = {type(item).__name__: item for item in stateful}
        trainer.checkpoints = self
        trainer.add_callback(self)  # the last one: it restores after all others have begun, and saves after them

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Restore everything but the random generators, which Trainer asks for when it is at the right row."""
        if not self._state:
            return
        saved, trainer = self._state, self._trainer
        for name, weight in _trained(model).items():
            _restore(weight, saved["weights"][name])
        for name, part in self._parts.items():
            part.load_state_dict(saved["parts"][name], model)
        cast(Any, trainer.optimizer).load_state_dict(saved["optimizer"])
        cast(Any, trainer.lr_scheduler).load_state_dict(saved["scheduler"])
        trainer.load_running_means(saved["means"])
        state.log_history = saved["history"]  # Trainer's own file sorts the keys
        for name in ("weights", "optimizer", "parts"):
            del saved[name]  # as much memory as training itself takes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due; at the end of an epoch only after others have done their part."""
        control.should_save = float(state.epoch) % 1 != 0 and self._due(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due."""
        control.should_save = self._due(state)

    def save(self) -> None:
        """Write a checkpoint, remove the one before, and leave if asked to."""
        trainer, step = self._trainer, self._trainer.state.global_step
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
        content = io.BytesIO()
        torch.save(self._collect(), content)
        write_atomically(fresh / TENSORS, content.getvalue())
        trainer.state.save_to_json(str(fresh / TRAINER_STATE))
        write_atomically(fresh / CARD, json.dumps(self.card))
        fresh.rename(self.folder / str(step))
        for old in self.folder.iterdir():
            if old.name != str(step):
                shutil.rmtree(old)
        self._saved_at = time.monotonic()
        if asked_to_leave():
            raise Preempted(step)

    def clear(self) -> None:
        """Remove what is in the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def restore_generators(self) -> None:
        """Set all random generators to where they were."""
        saved = self._state["generators"]
        version, internal, gauss = saved["python"]
        random.setstate((version, tuple(internal), gauss))
        numpy.random.set_state(
            (saved["numpy"][0], numpy.array(saved["numpy"][1], dtype=numpy.uint32), *saved["numpy"][2:])
        )
        torch.set_rng_state(saved["torch"])
        if torch.cuda.is_available() and saved["cuda"]:
            torch.cuda.set_rng_state_all(saved["cuda"])

    def _due(self, state: Any) -> bool:
        if state.global_step >= state.max_steps:  # nothing to go on with; what follows training is done again
            return False
        late = self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds
        return asked_to_leave() or late or (self.steps is not None and state.global_step % self.steps == 0)

    def _collect(self) -> dict[str, Any]:
        trainer: Any = self._trainer
        return {
            "weights": {name: weight.detach().cpu() for name, weight in _trained(trainer.model).items()},
            "parts": {name: part.state_dict(trainer.model) for name, part in self._parts.items()},
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.lr_scheduler.state_dict(),
            "means": trainer.running_means(),
            "history": trainer.state.log_history,
            "generators": _generators(),
            "epochs_done": int(float(trainer.state.epoch)),
            "seconds": self.earlier_seconds + time.monotonic() - self._begun,
        }

    def _load(self, folder: Path) -> None:
        try:
            self._state = torch.load(folder / TENSORS, map_location="cpu", weights_only=True)
            self.earlier_seconds = self._state["seconds"]
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            because = str(error).split("\n")[0]
            self.refused = f"started again instead of at step {folder.name}: the checkpoint cannot be read ({because})"
            self.resumed, self._state = None, {}
            self.clear()

    def _usable(self) -> Path | None:
        newest = newest_checkpoint(self.folder)
        if newest is None:
            return None
        card = json.loads((newest / CARD).read_text())
        changed = sorted(key for key in {*card, *self.card} if card.get(key) != self.card.get(key))
        if changed:
            self.refused = f"started again instead of at step {newest.name}: {', '.join(changed)} changed since"
            self.clear()
            return None
        return newest


class ResumableTrainer(Trainer):
    """A trainer whose saving and resuming are those of its `checkpoints`: Trainer's own loop, none of its files."""

    checkpoints: Checkpoints | None = None

    def get_train_dataloader(self) -> Any:
        """Return the loader, its sampler as far as it was at the begin of the epoch that is resumed."""
        loader = super().get_train_dataloader()
        for _ in range(self.checkpoints.epochs_done if self.checkpoints else 0):
            for _ in cast(Any, loader).batch_sampler:
                pass
        return loader

    def running_means(self) -> dict[str, Any]:
        """Return the sums since the last entry of the history."""
        means = {mode: dict(values) for mode, values in getattr(self, "_metrics", {}).items()}  # TRL's
        return {"loss": self._tr_loss.item(), "logged": self._globalstep_last_logged, "metrics": means}

    def load_running_means(self, saved: Mapping[str, Any]) -> None:
        """Take back what `running_means` returned."""
        self._tr_loss = torch.tensor(saved["loss"], device=self.args.device)
        self._globalstep_last_logged = saved["logged"]
        for mode, values in saved["metrics"].items():
            getattr(self, "_metrics")[mode].update(values)  # noqa: B009  only TRL's trainers have it

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self.checkpoints is not None
        self.checkpoints.save()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing yet: on_train_begin restores, after the method's callbacks have begun."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Nothing yet, for the same reason."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.checkpoints is not None and checkpoint is not None:
            self.checkpoints.restore_generators()


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _restore(weight: torch.nn.Parameter, saved: torch.Tensor) -> None:
    if weight.shape == saved.shape:
        with torch.no_grad():
            weight.copy_(saved)
    else:  # a method that cuts its weights while it trains
        weight.data = saved.to(weight.device, weight.dtype)


def _generators() -> dict[str, Any]:
    name, keys, *rest = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, cast(Any, keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
