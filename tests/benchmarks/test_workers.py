"""The memory of several workers: which cell they run, and what counts once."""

import os

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.workers import CELL, cell, mebibytes


def test_a_word_takes_the_place_of_the_cells_own():
    assert cell([]) == list(CELL)
    assert cell(["model=tiny", "seed=1"]) == [*(w for w in CELL if not w.startswith("model=")), "model=tiny", "seed=1"]


def test_weights_of_two_processes_count_once(tmp_path):
    here = psutil.Process(os.getpid())
    save_file({"a": torch.ones(2**20 * 4)}, tmp_path / "a.safetensors")
    before, twice_before = mebibytes([here]), mebibytes([here, here])
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        weights = file.get_tensor("a")
        assert weights.sum() == 2**22
        assert mebibytes([here]) - before == pytest.approx(16, abs=8)
        assert mebibytes([here, here]) - twice_before == pytest.approx(16, abs=8)
