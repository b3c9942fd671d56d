"""Adapter parameters on ESMFold's language model: the documented table is what the model and the formulas say."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAYERS, HIDDEN, HEADS, MATRICES = 36, 2560, 40, 4  # esm2_t36_3B


@pytest.fixture(scope="module")
def counts():
    spec = importlib.util.spec_from_file_location("folding_counts", ROOT / "scripts" / "folding_counts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_hand(name, rank):
    if name == "lora":
        return LAYERS * MATRICES * rank * 2 * HIDDEN
    return rank * (HIDDEN + HIDDEN // HEADS + HEADS + LAYERS + MATRICES)


def documented():
    text = (ROOT / "docs" / "protocols" / "folding_counts.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", text, flags=re.MULTILINE)
    return {(name, int(rank)): (int(one.replace(",", "")), int(two.replace(",", ""))) for name, rank, one, two in rows}


def test_the_documented_table_has_every_case(counts):
    assert set(documented()) == set(counts.CASES)


def test_the_documented_counts_are_those_made_by_hand():
    assert documented() == {case: (by_hand(*case),) * 2 for case in documented()}


@pytest.mark.parametrize("case", [("lora", 1), ("lorta", 64)])
def test_the_model_on_the_meta_device_has_the_documented_count(counts, case):
    assert counts.count(*case) == documented()[case]
