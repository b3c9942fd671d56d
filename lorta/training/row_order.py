"""The order in which training takes its rows: at random, or in steps of rows that are alike in length."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class RandomRows(Sampler[int]):
    """All rows in random order. The rows of one optimiser step are sorted by length where it is taken in parts.

    The parts then need less padding than the whole step, and the gradient of the step stays the same sum.
    """

    def __init__(self, lengths: Sequence[int], rows_a_step: int, sort_steps: bool, generator: torch.Generator) -> None:
        self.lengths, self.rows_a_step, self.sort_steps, self.generator = lengths, rows_a_step, sort_steps, generator

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        for first in range(0, len(order), self.rows_a_step):
            step = order[first : first + self.rows_a_step]
            yield from sorted(step, key=self.lengths.__getitem__, reverse=True) if self.sort_steps else step


class GroupedRows(Sampler[int]):
    """Steps of rows that are alike in length, in random order if `shuffle_groups`.

    Else each 50 steps go from the longest rows to the shortest, as transformers leaves them. Where length tells what a
    row is, training then forgets the long ones: short runs on STS-B end in a constant answer.
    """

    def __init__(
        self, lengths: Sequence[int], rows_a_step: int, shuffle_groups: bool, generator: torch.Generator
    ) -> None:
        self.lengths, self.rows_a_step, self.generator = list(lengths), rows_a_step, generator
        self.shuffle_groups = shuffle_groups

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = get_length_grouped_indices(self.lengths, self.rows_a_step, generator=self.generator)
        whole = len(order) // self.rows_a_step
        steps = torch.randperm(whole, generator=self.generator).tolist() if self.shuffle_groups else range(whole)
        for step in steps:
            yield from order[step * self.rows_a_step : (step + 1) * self.rows_a_step]
        yield from order[whole * self.rows_a_step :]  # the short step stays last: loaders count from the front
