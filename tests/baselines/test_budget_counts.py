"""What the committed table of budgets says on RoBERTa-base is what the models have, built on the meta device."""

import csv
from pathlib import Path

import pytest

from lorta.geometry import Geometry
from scripts.budget_table import ROBERTA_BASE, rows_of

REPORT = Path(__file__).parents[2] / "results" / "reports" / "budgets_roberta_base.csv"
ROWS = list(csv.DictReader(REPORT.open()))
BUILT = ("lora", "vera", "loretta_rep", "lorta", "fourierft", "lokr", "oft", "metatt_5d", "prompt_tuning", "vblora")
SIZES = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, **ROBERTA_BASE}


def row(name, asked):
    return next(row for row in ROWS if (row["adapter"], row["asked"]) == (name, asked))


@pytest.mark.parametrize("name", BUILT)
def test_a_model_of_the_solved_size_has_the_count_in_the_table(name, adapter, backbone):
    found = row(name, "20000")
    changes = {} if found["solved"] == "rank" else {found["solved"]: int(found["value"])}
    rank = int(found["value"]) if found["solved"] == "rank" else 8
    sizes = {key: value for key, value in SIZES.items() if key != "model_type"}
    model = adapter(name, rank, **changes).attach(backbone("roberta", device="meta", **sizes), "SEQ_CLS")
    trained = {path: weight.numel() for path, weight in model.named_parameters() if weight.requires_grad}
    apart = sum(size for path, size in trained.items() if "classifier" in path)
    assert sum(trained.values()) - apart == int(found["achieved"])


@pytest.mark.parametrize("name", ["lorta", "vera", "bitfit", "full", "unilora"])
def test_the_table_is_what_is_solved_today(name):
    found = rows_of(name, ["5k", "20k", "80k"], Geometry.from_config(ROBERTA_BASE))
    assert [["" if item is None else str(item) for item in line] for line in found] == [
        list(line.values()) for line in ROWS if line["adapter"] == name
    ]


def test_the_table_has_every_adapter():
    names = {file.stem for file in (Path(__file__).parents[2] / "conf" / "adapter").glob("*.yaml")}
    assert {line["adapter"] for line in ROWS} == names
