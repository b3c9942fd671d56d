"""Values that no method can use, and some that only look so."""

import pytest

from lorta.config.places import CONF
from lorta.config.ranges import range_problems
from lorta.planning.planner import make_plan


@pytest.mark.parametrize("node", [{"r": 0}, {"r": 2.5}, {"lora_dropout": 1.0}, {"dropout": float("nan")}, {"alpha": 0}])
def test_values_that_no_method_can_use(node):
    assert len(range_problems(node)) == 1


@pytest.mark.parametrize(
    "node", [{"r": 0, "oft_block_size": 32}, {"hybrid_r": 0}, {"r": [4, 8]}, {"lora_dropout": 0.0}]
)
def test_values_that_some_method_has(node):
    assert range_problems(node) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task=dpo", "trainer.shuffle_groups=true"], "trainer: shuffle_groups=true needs groups to shuffle: set"),
        (["tune=lr", "tune.seeds=[1]"], "tune: a search needs two seeds or more: a rate may collapse on one of them"),
    ],
)
def test_a_fault_between_two_settings_is_said_without_the_whole_section(words, sentence):
    (problem,) = make_plan(["adapter=lora", *words], False, CONF).problems
    assert problem.startswith(sentence)
