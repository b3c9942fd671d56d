"""The order of training rows: each row once, the same for the same seed, and no drift from long rows to short ones."""

import pytest
import torch
from scipy.stats import spearmanr
from transformers.trainer_pt_utils import LengthGroupedSampler

from lorta.training.row_order import GroupedRows, RandomRows


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def lengths(rows: int) -> list[int]:
    return torch.randint(5, 90, (rows,), generator=torch.Generator().manual_seed(rows)).tolist()


def steps(order: list[int], size: int) -> list[list[int]]:
    return [order[first : first + size] for first in range(0, len(order), size)]


MAKERS = {
    "random": lambda rows, size: RandomRows(lengths(rows), size, False, generator()),
    "random, steps sorted": lambda rows, size: RandomRows(lengths(rows), size, True, generator()),
    "grouped": lambda rows, size: GroupedRows(lengths(rows), size, True, generator()),
    "grouped, not shuffled": lambda rows, size: GroupedRows(lengths(rows), size, False, generator()),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("rows", "size"), [(1, 4), (7, 8), (8, 8), (23, 4), (1000, 16)])
def test_each_row_comes_once_an_epoch_and_epochs_differ(name, rows, size):
    sampler = MAKERS[name](rows, size)
    first, second = list(sampler), list(sampler)
    assert len(sampler) == rows
    assert sorted(first) == sorted(second) == list(range(rows))
    assert list(MAKERS[name](rows, size)) == first
    assert first != second or rows == 1 or (rows <= size and name != "random")


@pytest.mark.parametrize("rows", [23, 64, 1000])
def test_a_random_order_is_that_of_torch_whether_steps_are_sorted_or_not(rows):
    expected = torch.randperm(rows, generator=generator()).tolist()
    assert list(MAKERS["random"](rows, 16)) == expected
    known = lengths(rows)
    for step, drawn in zip(steps(list(MAKERS["random, steps sorted"](rows, 16)), 16), steps(expected, 16), strict=True):
        assert sorted(step) == sorted(drawn)  # the same rows, and so the same gradient
        assert [known[row] for row in step] == sorted((known[row] for row in drawn), reverse=True)


@pytest.mark.parametrize("rows", [23, 64, 1000])
def test_groups_are_those_of_transformers_and_only_their_order_is_new(rows):
    grouped = LengthGroupedSampler(8, lengths=lengths(rows), generator=generator())
    expected = steps(list(grouped), 8)
    assert steps(list(MAKERS["grouped, not shuffled"](rows, 8)), 8) == expected
    mine = steps(list(MAKERS["grouped"](rows, 8)), 8)
    assert sorted(mine) == sorted(expected)
    assert mine != expected
    assert mine[-1] == expected[-1] or rows % 8 == 0  # a short step stays the last


def test_steps_do_not_run_from_long_rows_to_short_ones():
    known = lengths(3200)

    def drift(name: str) -> float:
        means = [sum(known[row] for row in step) / 16 for step in steps(list(MAKERS[name](3200, 16)), 16)[:50]]
        return float(spearmanr(range(50), means).statistic)

    assert drift("grouped, not shuffled") < -0.9
    assert abs(drift("grouped")) < 0.3


def test_parts_of_a_sorted_step_hold_less_padding():
    known = lengths(1600)

    def padded(name: str) -> int:
        return sum(max(known[row] for row in part) * 4 for part in steps(list(MAKERS[name](1600, 16)), 4))

    assert padded("random, steps sorted") < 0.8 * padded("random")
