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
import re
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy
import torch
from transformers import Trainer, TrainerCallback, TrainerState

from lorta.records.store import remove, write_atomically
from lorta.system.preemption import Preempted, preemption_requested
from lorta.training.callbacks import stop_step
from lorta.training.recovery import (
    CARD,
    CheckpointUnusable,
    damage_of,
    newest_checkpoint,
    write_checksums,
)

TRAINER_STATE, TENSORS = "trainer_state.json", "state.pt"  # the first is Trainer's name
PARTS = {"weights", "parts", "optimizer", "scheduler", "means", "history", "generators", "epochs_done", "seconds"}
MEMORY = re.compile("alloc|out of memory")  # of torch's errors that a smaller batch may avoid
UNREADABLE = (
    *(OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, RecursionError),
    pickle.UnpicklingError,
)


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

    With `stop_after` there is one at the step that ends this share of the steps. `card` are plain values without which
    a checkpoint is worthless (the code's commit, versions, the batch): one with another card is not used, and `refused`
    says so. A request to leave makes a checkpoint and raises Preempted.
    """

    def __init__(
        self,
        folder: Path,
        card: Mapping[str, Any],
        steps: int | None,
        seconds: float | None,
        stop_after: float | None = None,
    ) -> None:
        self.folder, self.card, self.steps, self.seconds = folder, dict(card), steps, seconds
        self.stop_after = stop_after
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
        """Restore everything but the random generators, which Trainer asks for when it is at the right row.

        Raises CheckpointUnusable for what does not go with the model.
        """
        if not self._state:
            return
        with self._fitting():
            self._restore_all(model)
            state.log_history = self._state["history"]  # Trainer's own file sorts the keys
        for name in ("weights", "optimizer", "parts"):
            del self._state[name]  # as much memory as training itself takes

    def _restore_all(self, model: Any) -> None:
        saved, trainer = self._state, cast(Any, self._trainer)
        weights = _trained(model)
        if saved["weights"].keys() != weights.keys():
            raise ValueError("it holds weights of other names")
        for name, weight in weights.items():
            _restore(name, weight, saved["weights"][name])
        for name, part in self._parts.items():
            part.load_state_dict(saved["parts"][name], model)
        trainer.optimizer.load_state_dict(saved["optimizer"])
        for weight, kept in trainer.optimizer.state.items():
            if "exp_avg" in kept and kept["exp_avg"].numel() != weight.numel():
                raise ValueError("its optimizer holds tensors of other shapes")
        trainer.lr_scheduler.load_state_dict(saved["scheduler"])
        trainer.load_running_means(saved["means"])

    @contextmanager
    def _fitting(self) -> Generator[None]:
        """Within the block, whatever does not go with the model or the run is the checkpoint's fault."""
        try:
            yield
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            if MEMORY.search(str(error)) or isinstance(error, torch.OutOfMemoryError):
                raise
            raise CheckpointUnusable(_again(self.resumed, _first_line(error))) from error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due; at the end of an epoch only after others have done their part."""
        control.should_save = float(state.epoch) % 1 != 0 and self._due(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due."""
        control.should_save = float(state.epoch) % 1 == 0 and self._due(state)  # not where a run stops within an epoch

    def save(self) -> None:
        """Write a checkpoint, remove the one before, and leave if asked to."""
        trainer, step = self._trainer, self._trainer.state.global_step
        if not self.folder.is_dir():
            self.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
        content = io.BytesIO()
        torch.save(self._collect(), content)
        write_atomically(fresh / TENSORS, content.getvalue())
        trainer.state.save_to_json(str(fresh / TRAINER_STATE))
        write_atomically(fresh / TRAINER_STATE, (fresh / TRAINER_STATE).read_bytes())  # on the disk, not in a buffer
        write_atomically(fresh / CARD, json.dumps(self.card))
        write_checksums(fresh)
        remove(self.folder / str(step))
        fresh.rename(self.folder / str(step))
        for old in self.folder.iterdir():
            if old.name != str(step):
                remove(old)
        self._saved_at = time.monotonic()
        if preemption_requested():
            raise Preempted(step)

    def clear(self) -> None:
        """Remove the folder."""
        remove(self.folder)

    def restore_generators(self) -> None:
        """Set all random generators to where they were. Raises CheckpointUnusable for what is no state of theirs."""
        with self._fitting():
            self._restore_generators(self._state["generators"])

    @staticmethod
    def _restore_generators(saved: Mapping[str, Any]) -> None:
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
        if self.stop_after is not None and state.global_step == stop_step(self.stop_after, state.max_steps):
            return True  # a run that stops later goes on from there
        late = self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds
        return preemption_requested() or late or (self.steps is not None and state.global_step % self.steps == 0)

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

    def _load(self, newest: Path) -> None:
        try:
            state = torch.load(newest / TENSORS, map_location="cpu", weights_only=True)
            if missing := sorted(PARTS - state.keys()):
                raise KeyError(f"{TENSORS} lacks {', '.join(missing)}")
            self._state, self.earlier_seconds = state, float(state["seconds"])
            if TrainerState.load_from_json(str(newest / TRAINER_STATE)).global_step != int(newest.name):
                raise ValueError(f"{TRAINER_STATE} is that of another step")
        except UNREADABLE as error:
            self._refuse(newest, f"the checkpoint cannot be read ({_first_line(error)})")

    def _usable(self) -> Path | None:
        if self.folder.exists() and not self.folder.is_dir():
            self.refused = f"started again: {self.folder.name} is a file, no folder of checkpoints"
            self.clear()
        newest = newest_checkpoint(self.folder)
        if newest is None:
            return None
        if damage := damage_of(newest):
            return self._refuse(newest, f"the checkpoint cannot be read ({damage})")
        try:
            card = json.loads((newest / CARD).read_text())
            changed = sorted(key for key in {*card, *self.card} if card.get(key) != self.card.get(key))
        except UNREADABLE as error:
            return self._refuse(newest, f"the checkpoint cannot be read ({_first_line(error)})")
        if changed:
            return self._refuse(newest, f"{', '.join(changed)} changed since")
        return newest if self._before_the_stop(newest) else self._refuse(newest, "the run stops there")

    def _before_the_stop(self, newest: Path) -> bool:
        """Return whether a step is left to do: Trainer does one before it asks whether to stop."""
        if self.stop_after is None:
            return True
        try:
            steps = TrainerState.load_from_json(str(newest / TRAINER_STATE)).max_steps
        except UNREADABLE:
            return True  # said when it is loaded
        return int(newest.name) < stop_step(self.stop_after, steps)

    def _refuse(self, newest: Path, because: str) -> None:
        self.refused = _again(newest, because)
        self.resumed, self._state = None, {}
        self.clear()


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


def _restore(name: str, weight: torch.nn.Parameter, saved: torch.Tensor) -> None:
    if weight.shape == saved.shape:
        with torch.no_grad():
            weight.copy_(saved)
    elif weight.dim() == saved.dim() and all(new <= old for new, old in zip(saved.shape, weight.shape, strict=True)):
        weight.data = saved.to(weight.device, weight.dtype)  # of a method that cuts its weights while it trains
    else:
        raise ValueError(f"{name} is {tuple(saved.shape)}, and the model's {tuple(weight.shape)}")


def _again(checkpoint: Path | None, because: str) -> str:
    return f"started again instead of at step {checkpoint.name if checkpoint else '?'}: {because}"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


def _generators() -> dict[str, Any]:
    name, keys, *rest = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, cast(Any, keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
