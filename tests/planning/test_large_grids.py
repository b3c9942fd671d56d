"""A wrong word in a large grid is refused before every adapter is composed; keys of adapters are looked for in all."""

import pytest

from lorta.config import compose
from lorta.config.places import CONF
from lorta.planning.large_grids import FEW
from lorta.planning.planner import make_plan

GRID = ("adapter=glob(lo*)", "rank=4,8", "seed=range(0,20)")


@pytest.fixture
def composed(monkeypatch):
    """The choices that were composed."""
    choices: list[str] = []
    before = compose._Composer.compose

    def counting(self, combination, problems):
        choices.append(str(combination.get("adapter")))
        return before(self, combination, problems)

    monkeypatch.setattr(compose._Composer, "compose", counting)
    return choices


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.learning_rat=0.1", "trainer.learning_rat: no such key; did you mean trainer.learning_rate"),
        ("trainer.learning_rate=abc", "trainer.learning_rate='abc': input should be a valid number"),
        ("task=glue/rte,glue/rtf", "task=glue/rtf: no such task"),
        ("model=tiny,tinny", "model=tinny: no such model"),
    ],
)
def test_a_wrong_word_is_refused_before_every_adapter_is_composed(composed, word, said):
    plan = make_plan([*GRID, word], True, CONF)
    assert any(problem.startswith(said) for problem in plan.problems)
    assert len(composed) <= FEW


def test_several_wrong_words_are_said_at_once():
    plan = make_plan([*GRID, "trainer.max_step=3", "runtime.workers=-1", "task=glue/rtf"], True, CONF)
    assert {problem.split(":")[0] for problem in plan.problems} == {
        "task=glue/rtf",
        "trainer.max_step",
        "runtime.workers=-1",
    }


def test_the_key_of_an_adapter_is_looked_for_in_every_adapter(composed):
    plan = make_plan([*GRID, "adapter.config.no=3"], True, CONF)
    lacking = {problem.partition(" with adapter=")[2].split(";")[0] for problem in plan.problems}
    assert lacking == set(composed)
    assert len(lacking) > FEW
