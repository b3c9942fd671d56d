"""From chains to batches: crops, padding, and how often a training step recycles. Everything drawn is seeded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.esm.openfold_utils import residue_constants as constants

from experiments.folding.target import Target

NO_CLUSTERS: Mapping[str, int] = {}
UNKNOWN = constants.restype_order_with_x["X"]


def residue_numbers(sequence: str) -> list[int]:
    """Return AlphaFold's number of each residue, 0 to 20, which is what ESMFold reads; 20 for an unknown letter."""
    return [constants.restype_order_with_x.get(letter, UNKNOWN) for letter in sequence]


class TargetRows(Sequence[Target]):
    """Chains as rows of a data set; `rows["input_ids"]` is the column that samplers and some methods read.

    `refused` and `remarks` are (file or target, sentence): what the source could not read, or read otherwise.
    `clusters` number the family of a target of that name, where families are known.
    """

    column_names = ("input_ids",)

    def __init__(
        self,
        targets: Sequence[Target],
        refused: Sequence[tuple[str, str]] = (),
        remarks: Sequence[tuple[str, str]] = (),
        clusters: Mapping[str, int] = NO_CLUSTERS,
    ) -> None:
        self.clusters = clusters
        self.targets, self.refused, self.remarks = list(targets), tuple(refused), tuple(remarks)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> Any:
        if index == "input_ids":
            return [residue_numbers(target.sequence) for target in self.targets]
        return self.targets[index]


def collate(targets: Sequence[Target]) -> dict[str, Tensor]:
    """Return a padded batch: input_ids and attention_mask (B, L), positions (B, L, 37, 3), atom_mask (B, L, 37)."""
    longest = max(len(target.sequence) for target in targets)
    batch = {
        "input_ids": torch.zeros(len(targets), longest, dtype=torch.long),
        "attention_mask": torch.zeros(len(targets), longest, dtype=torch.long),
        "positions": torch.zeros(len(targets), longest, constants.atom_type_num, 3),
        "atom_mask": torch.zeros(len(targets), longest, constants.atom_type_num),
    }
    for row, target in enumerate(targets):
        length = len(target.sequence)
        batch["input_ids"][row, :length] = torch.tensor(residue_numbers(target.sequence))
        batch["attention_mask"][row, :length] = 1
        batch["positions"][row, :length] = torch.from_numpy(target.positions)
        batch["atom_mask"][row, :length] = torch.from_numpy(target.mask).float()
    return batch


class TrainingBatches:
    """Collates training batches: a crop of each chain, and a number of recycles for all chains of an optimiser step.

    `crop` is in residues; `recycles` is the most, of which a step gets 0 up to all with equal chance (Jumper et al.
    2021, supplement, algorithm 31) if `sampled`, and always all if not. A step has `batches_of_step` batches, the last
    of an epoch of `batches_of_epoch` (None: endless) fewer; what is drawn for it does not depend on their number.
    """

    def __init__(
        self,
        crop: int,
        recycles: int,
        sampled: bool,
        seed: int,
        batches_of_step: int = 1,
        batches_of_epoch: int | None = None,
    ) -> None:
        self.crop, self.recycles, self.sampled = crop, recycles, sampled
        self.batches_of_step, self.batches_of_epoch = batches_of_step, batches_of_epoch
        self._random = np.random.default_rng(seed)
        self._made = 0  # batches of this epoch

    def __call__(self, targets: Sequence[Target]) -> dict[str, Any]:
        """Return `collate`'s batch of crops; the last of a step also has its num_recycles."""
        batch = collate([self.cropped(target) for target in targets])
        self._made = 0 if self._made + 1 == self.batches_of_epoch else self._made + 1
        if self._made % self.batches_of_step:
            return batch
        drawn = int(self._random.integers(self.recycles + 1)) if self.sampled else self.recycles
        return batch | {"num_recycles": drawn}

    def state_dict(self) -> dict[str, Any]:
        """Return from where the draws go on, as plain values."""
        return {"made": self._made, "random": json.dumps(self._random.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._made, self._random.bit_generator.state = state["made"], json.loads(state["random"])

    def cropped(self, target: Target) -> Target:
        """Return a stretch of at most `crop` residues, each with equal chance. The language model sees no more."""
        excess = len(target.sequence) - self.crop
        if excess <= 0:
            return target
        start = int(self._random.integers(excess + 1))
        part = slice(start, start + self.crop)
        return Target(target.name, target.sequence[part], target.positions[part], target.mask[part])
