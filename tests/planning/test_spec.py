"""What is part of a run's identity, and what is not."""

import json
import os
import subprocess
import sys

import pytest

from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.canonical import canonical_json

BASE = ["adapter=lora", "task=glue/cola"]


def signature(*overrides: str) -> str:
    (spec,) = make_plan([*BASE, *overrides], False, CONF).specs
    return spec.signature


@pytest.mark.parametrize(
    "override",
    [
        "rank=4",
        "seed=1",
        "adapter.config.lora_alpha=8",
        "trainer.learning_rate=1e-4",
        "trainer.cpu_threads=2",
        "data.max_train_samples=10",
        "data.max_length=32",
        "trainer.selection=best",
        "model.quantization=4bit",
        "model.gradient_checkpointing=true",
    ],
)
def test_what_can_move_a_number_changes_the_signature(override):
    assert signature(override) != signature()


@pytest.mark.parametrize(
    "override",
    [
        "runtime.workers=3",
        "runtime.runs=elsewhere",
        "runtime.cache=elsewhere",
        "runtime.name=x",
        "runtime.force=true",
        "tracking=wandb_offline",
        "data.source=embedded",
        "trainer.num_train_epochs=3",
        "rank=8",
        "experiment=null",
        "trainer.learning_rate=1e-2",  # what lora.yaml says
    ],
)
def test_what_cannot_move_a_number_does_not(override):
    assert signature(override) == signature()


def test_an_adapters_default_rate_is_no_part_of_a_run_that_has_another():
    fixed = ("trainer.learning_rate=1e-4", "trainer.head_learning_rate=1e-4")
    assert signature(*fixed, "adapter.learning_rate=1", "adapter.head_learning_rate=1") == signature(*fixed)
    assert signature("adapter.learning_rate=1") != signature()


def test_the_cell_of_a_run_is_the_same_for_all_seeds():
    specs = make_plan([*BASE, "seed=0,1,2"], True, CONF).specs
    assert len({spec.cell_id for spec in specs}) == 1
    assert len({spec.signature for spec in specs}) == 3


def test_the_rank_of_another_adapter_is_no_part_of_a_run():
    ranks = {make_plan(["adapter=head_only", f"rank={rank}"], False, CONF).specs[0].signature for rank in (1, 64)}
    assert len(ranks) == 1


def test_changed_data_is_another_run(tmp_path):
    rows = [{"sentence": "a", "label": 0, "idx": 0}, {"sentence": "b", "label": 1, "idx": 1}]
    folder = tmp_path / "glue" / "cola"
    folder.mkdir(parents=True)
    found = []
    for number in (1, 2):
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:number]))
        found.append(signature(f"data.root={tmp_path}"))
    assert len(set(found)) == 2


def test_the_same_files_elsewhere_are_the_same_run(tmp_path):
    for place in ("here", "there"):
        folder = tmp_path / place / "glue" / "cola"
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text('{"sentence": "a", "label": 0}\n')
    assert signature(f"data.root={tmp_path}/here") == signature(f"data.root={tmp_path}/there")


def test_the_signature_does_not_depend_on_the_hash_seed():
    script = (
        "from lorta.planning.planner import make_plan\nfrom lorta.config.places import CONF\n"
        f"print(make_plan({BASE!r}, False, CONF).specs[0].signature)"
    )
    command = [sys.executable, "-c", script]
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    found = {
        subprocess.run(command, env=env, text=True, capture_output=True, check=True).stdout.strip()
        for env in environments
    }
    assert found == {signature()}


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": float("nan")})
