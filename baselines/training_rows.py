"""Labelled batches of the training split for methods that look at data before the first step."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class DataDrivenStart(TrainerCallback):
    """Calls `start` on the first rows of the training split before the first step.

    The optimizer is there already: `start` changes weights in place and replaces none. A subclass gives `start`. The
    rows are not drawn from the loader, which would move the order of the batches.
    """

    def __init__(self, config: Mapping[str, Any], rows: int | None = None) -> None:
        """`rows` is how many are looked at, all of them where the split has fewer; None: as many as a batch has."""
        self.config, self.rows = config, rows

    def start(self, model: Any, batches: Iterator[dict[str, Tensor]]) -> None:
        """Begin the adapter from batches of inputs with their labels, on the model's device."""
        raise NotImplementedError

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from rows in batches of the training's size."""
        size = args.per_device_train_batch_size
        self.start(kwargs["model"], self._batches(kwargs["train_dataloader"], size, args.device))

    def _batches(self, loader: Any, size: int, device: Any) -> Iterator[dict[str, Tensor]]:
        rows = min(self.rows or size, len(loader.dataset))
        collate = copy.copy(loader.collate_fn)  # a copy, as the harness's own counts what it collates
        for first in range(0, rows, size):
            batch = collate([loader.dataset[row] for row in range(first, min(first + size, rows))])
            yield {name: value.to(device) for name, value in batch.items()}

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return nothing for a checkpoint: the start is found again, and what is trained is restored after it."""
        return {}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
