"""Rows from the embedded language, local files and archives: the same columns, capped and cached the same way."""

import gzip
import json
import os
from pathlib import Path

import pytest

from experiments.files import read_lines
from experiments.glue import GlueTask
from experiments.rows import cap, local_file
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.config.settings import DataSettings
from lorta.planning.planner import make_plan

SHARED = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS = [{"sentence": f"row {index}", "label": index % 2, "idx": index} for index in range(20)]


def data(**settings) -> DataSettings:
    defaults = {"source": "auto", "root": None, "max_train_samples": None, "max_eval_samples": None, "max_length": 16}
    return DataSettings(**(defaults | settings))


def task(name: str) -> GlueTask:
    (spec,) = make_plan([f"task={name}"], False, CONF).specs
    return build(spec.settings.task)


def write(folder: Path, ending: str) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    for split in ("train", "validation"):
        file = folder / "glue" / "sst2" / f"{split}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        opener = gzip.open if ending.endswith("gz") else open
        with opener(file, "wt") as stream:
            stream.write(text)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_local_files_are_read_plain_or_compressed(tmp_path, ending):
    write(tmp_path, ending)
    assert [row for _, row in read_lines(local_file(tmp_path, "glue/sst2", "train"))] == ROWS
    plan = task("glue/sst2").plan_data(data(root=str(tmp_path)), "hub")
    assert (plan.source, sorted(plan.fingerprints)) == ("local", ["evaluation", "train"])


def test_a_file_called_validation_serves_for_the_matched_split(tmp_path):
    write(tmp_path, "jsonl")
    assert local_file(tmp_path, "glue/sst2", "validation_matched").name == "validation.jsonl"
    with pytest.raises(ValueError, match="neither"):
        local_file(tmp_path, "glue/sst2", "test")


def test_the_cap_keeps_order_and_does_not_depend_on_anything_but_the_task():
    capped = cap(ROWS, 7, "glue/sst2")
    assert len(capped) == 7
    assert [row["idx"] for row in capped] == sorted(row["idx"] for row in capped)
    assert capped == cap(ROWS, 7, "glue/sst2")
    assert capped != cap(ROWS, 7, "glue/cola")
    assert [row["idx"] for row in cap(ROWS, 5, "glue/sst2")] == [
        row["idx"] for row in capped if row in cap(ROWS, 5, "glue/sst2")
    ]


def test_the_source_follows_the_root_and_the_model(tmp_path):
    write(tmp_path, "jsonl")
    found = task("glue/sst2")
    assert found.plan_data(data(), "embedded").source == "embedded"
    assert found.plan_data(data(root=str(tmp_path)), "embedded").source == "local"
    with pytest.raises(ValueError, match="not in the local cache"):
        found.plan_data(data(source="hub"), "embedded")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real GLUE files at {SHARED} (set LORTA_DATA to their folder)")
@pytest.mark.parametrize(
    ("name", "train", "validation"), [("mrpc", 3668, 408), ("rte", 2490, 277), ("sst2", 67349, 872)]
)
def test_real_glue_files_pass_every_check(name, train, validation):
    plan = task(f"glue/{name}").plan_data(data(root=str(SHARED)), "hub")
    assert plan.source == "local"
    counts = [
        sum(1 for _ in read_lines(local_file(SHARED, f"glue/{name}", split))) for split in ("train", "validation")
    ]
    assert counts == [train, validation]
