"""Seeds cost no composition of their own, and a run among many is the run that it is alone."""

import pytest

from lorta.config import compose
from lorta.config.places import CONF
from lorta.planning.planner import make_plan

TASK = ("task=glue/rte", "trainer=smoke")


def planned(*words: str):
    plan = make_plan([*words, *TASK], True, CONF)
    assert not plan.problems
    return plan.specs


@pytest.mark.parametrize(
    "words",
    [
        ("adapter=lora,lorta", "rank=4,8", "seed=0,1"),
        ("seed=3,1", "adapter=lora", "rank=8,4"),
        ("adapter=lorta", "seed=0,1", "init_seed=0,7", "order_seed=1"),
        ("adapter=lora", "budget=5k", "seed=0,1"),
    ],
    ids=["inside", "first", "separate", "budget"],
)
def test_a_run_among_many_seeds_is_the_one_that_it_is_alone(words):
    among = planned(*words)
    assert len(among) > 1
    for spec in among:
        (alone,) = planned(*(word for word in words if "," not in word), *_own_words(words, spec.overrides))
        assert (spec.run_id, spec.cell_id, spec.config) == (alone.run_id, alone.cell_id, alone.config)
        assert (spec.settings, spec.budgets, spec.choices) == (alone.settings, alone.budgets, alone.choices)
        assert sorted(spec.overrides) == sorted(alone.overrides)


def _own_words(words, overrides):
    """A run's words for the keys that have several values in the sweep."""
    keys = [word.partition("=")[0] for word in words if "," in word]
    return [word for word in overrides if word.partition("=")[0] in keys]


def test_runs_stand_in_the_order_in_which_the_words_vary():
    pairs = [(spec.settings.seed, spec.adapter.rank) for spec in planned("adapter=lora", "seed=1,0", "rank=4,8")]
    assert pairs == [(1, 4), (1, 8), (0, 4), (0, 8)]


def test_a_hundred_seeds_are_composed_once(monkeypatch):
    resolved: list[str] = []
    resolve = compose._resolve
    monkeypatch.setattr(compose, "_resolve", lambda *words: resolved.append("") or resolve(*words))
    assert len(planned("adapter=lora,lorta", "seed=range(0,100)")) == 200
    assert len(resolved) == 2


def test_what_refers_to_the_seed_is_composed_for_each():
    specs = planned("adapter=lora", "trainer.max_steps=${seed}", "seed=3,5")
    assert [(spec.settings.seed, spec.settings.trainer.max_steps) for spec in specs] == [(3, 3), (5, 5)]


@pytest.mark.parametrize("seed", ["-1", "2147483648", "1.5", "true", "abc"])
def test_one_seed_among_many_that_cannot_be_is_named(seed):
    plan = make_plan([f"seed=0,{seed},1", *TASK], True, CONF)
    assert len(plan.problems) == 1
    assert plan.problems[0].startswith("seed=")


def test_a_wrong_word_in_a_large_grid_is_one_sentence():
    plan = make_plan(["adapter=lora,lorta", "rank=0", "seed=range(0,3000)", *TASK], True, CONF)
    assert plan.problems == ("rank=0: input should be greater than or equal to 1",)
