"""Three seeds of a run, their place in its identity, and the table of where variance comes from."""

from dataclasses import replace

import pytest

from lorta.analysis.summary import summarise
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.planning.titles import title
from lorta.reporting.variance import variance_section
from lorta.runner.execute import execute
from lorta.training.trainer import training_arguments
from tests.example_records import finished
from tests.training.test_trainer import settings

WORDS = ("task=glue/rte", "adapter=lora", "rank=2", "seed=3")


def spec(*words: str):
    (planned,) = make_plan([*WORDS, *words], False, CONF).specs
    return planned


def seeded(value: float, **seeds: int):
    record = finished(value=value)
    signature = f"{abs(hash(tuple(sorted(seeds.items())))):012x}"[:12]
    return replace(record, run_id=signature, config={**record.config, **seeds})


def test_a_seed_at_its_default_is_no_part_of_an_identity_and_another_one_is():
    assert spec("init_seed=3", "order_seed=3", "dropout_seed=3").signature == spec().signature
    others = [spec(f"{name}_seed=4") for name in ("init", "order", "dropout")]
    assert len({spec().signature, *(other.signature for other in others)}) == 4
    assert {other.cell_id for other in others} == {spec().cell_id}
    assert title(others[0]).endswith("seed 3 (init 4)")


def test_trials_of_a_rate_have_seeds_of_their_own():
    plans = [make_plan([*WORDS, "tune=lr", *more], False, CONF) for more in ([], ["order_seed=7"])]
    assert {trial.signature for trial in plans[0].trials} == {trial.signature for trial in plans[1].trials}


def test_data_order_and_dropout_have_their_own_seeds(tmp_path):
    given = training_arguments(settings(), 1, tmp_path, 2)
    assert (given["seed"], given["data_seed"]) == (1, 2)
    assert training_arguments(settings(), 1, tmp_path)["data_seed"] == 1


def test_each_seed_changes_what_it_names_and_nothing_else(tmp_path):
    """With the rate nearly 0 only the start counts; the first loss then tells order from start and from dropout."""
    words = ("data.max_train_samples=64", "data.max_eval_samples=20", "trainer.max_steps=1", f"runtime.runs={tmp_path}")
    words += ("adapter.config.lora_dropout=0.5", "trainer.per_device_train_batch_size=8", "trainer.learning_rate=1e-9")
    words += ("trainer.head_learning_rate=1e-9", f"runtime.cache={tmp_path}/cache")
    made = {name: execute(spec(*words, *more)) for name, more in SEEDS.items()}
    assert [record.status for record in made.values()] == ["success"] * 4
    predictions = {name: (tmp_path / record.run_id / "predictions.jsonl").read_bytes() for name, record in made.items()}
    assert predictions["same"][:200] == predictions["order"][:200] == predictions["dropout"][:200]
    assert predictions["init"][:200] != predictions["same"][:200]
    assert made["order"].train_loss_final != made["same"].train_loss_final
    assert made["dropout"].seeds == (3, 3, 5) and made["dropout"].has_separate_seeds


SEEDS = {"same": (), "init": ("init_seed=5",), "order": ("order_seed=5",), "dropout": ("dropout_seed=5",)}


def test_the_table_has_the_share_of_each_seed_and_no_table_of_scores_has_such_runs():
    scores = [(0.80, {}), (0.84, {"init_seed": 1}), (0.82, {"order_seed": 1}), (0.80, {"dropout_seed": 1})]
    records = [seeded(value, **seeds) for value, seeds in scores]
    section = variance_section(records)
    assert "| lora r=4, glue/rte | initialisation | 80% | 2.83 |" in section
    assert "| lora r=4, glue/rte | data order | 20% | 1.41 |" in section
    assert "| lora r=4, glue/rte | dropout | 0% | 0.00 |" in section
    (table,) = summarise(records)
    assert len(table.runs) == 1


def test_without_separate_seeds_there_is_no_section_and_a_seed_that_never_varies_is_named():
    assert variance_section([finished(), finished(seed=1)]) == ""
    said = variance_section([seeded(0.8), seeded(0.9, init_seed=1)])
    assert "the share of order needs two runs that differ in its seed alone" in said


@pytest.mark.parametrize("word", ["init_seed=-1", "order_seed=a", "dropout_seed=0.5"])
def test_a_seed_that_is_none_is_refused(word):
    assert any(word.partition("=")[0] in problem for problem in make_plan([*WORDS, word], False, CONF).problems)
