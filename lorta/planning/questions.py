"""What a study asks before it runs: `compare`, resolved to comparisons of two rows of its tables. No torch.

`compare` is a mapping or a list of them: {method: lorta, with: lora r=8, margin: 1.0, task: glue/stsb}. A method is
named as the command line and tables do: `lora` is every size of it, `lora r=8` or `lora budget=5k` one. `with: all` is
every other method of the sweep, and `compare: best` every pair of them. Part of no identity.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from lorta.config.settings import read_count
from lorta.config.suggestions import did_you_mean
from lorta.planning.spec import RunSpec
from lorta.records.sections import Question, check_margin

NAME = re.compile(r"(?P<adapter>\S+)(?: (?:r|rank)=(?P<rank>\d+))?(?: budget=(?P<budget>\S+))?")
KEYS = ("method", "with", "margin", "task")
BEST, ALL = "best", "all"
EXAMPLE = "{method: lorta, with: lora r=8, margin: 1.0}"


def label(spec: RunSpec) -> str:
    """Return the name of the row that a run belongs to, without settings that tell variants apart."""
    return Method(str(spec.settings.adapter["name"]), spec.adapter.rank, frozenset()).label


class Method(NamedTuple):
    """A method of the sweep at one size, and the budgets that led to it."""

    adapter: str
    rank: int | None
    budgets: frozenset[int]

    @property
    def label(self) -> str:
        """The name of its row."""
        return self.adapter if self.rank is None else f"{self.adapter} r={self.rank}"


def stated(specs: Sequence[RunSpec], seeds: tuple[int, int] | None = None) -> tuple[Question, ...]:
    """Return the questions of a sweep, in their order, with its least and most number of seeds if it adds them.

    Raises ValueError, a line for each that cannot be asked.
    """
    asked: list[Any] = []
    for spec in specs:
        asked += [spec.settings.compare] if spec.settings.compare not in asked else []
    if len(asked) > 1:
        raise ValueError("compare: give one list of comparisons for the whole sweep")
    if not asked or asked[0] is None:
        return ()
    methods, tasks = _methods(specs), sorted({str(spec.settings.task["name"]) for spec in specs})
    if asked[0] == BEST:
        return tuple(replace(question, seeds=seeds) for question in _best(methods))
    questions: list[Question] = []
    problems: list[str] = []
    for one in asked[0] if isinstance(asked[0], list) else [asked[0]]:
        try:
            questions += _questions(one, methods, tasks)
        except ValueError as error:
            problems.append(f"compare: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(replace(question, seeds=seeds) for question in dict.fromkeys(questions))


def _methods(specs: Iterable[RunSpec]) -> list[Method]:
    """Return the methods of a sweep, each once, with the budgets of all of its runs."""
    budgets: dict[tuple[str, int | None], set[int]] = {}
    for spec in specs:
        key = str(spec.settings.adapter["name"]), spec.adapter.rank
        budgets.setdefault(key, set()).update(budget.asked for budget in spec.budgets)
    return [Method(adapter, rank, frozenset(of)) for (adapter, rank), of in budgets.items()]


def _best(methods: Sequence[Method]) -> tuple[Question, ...]:
    if len(methods) < 2:
        raise ValueError("compare: the best of all needs two methods or more in the sweep")
    return tuple(Question(method=one.label, reference=other.label) for one, other in combinations(methods, 2))


def _questions(asked: Any, methods: Sequence[Method], tasks: Sequence[str]) -> Iterator[Question]:
    if not isinstance(asked, Mapping) or not {"method", "with"} <= asked.keys() <= set(KEYS):
        raise ValueError(f"needs method and with, and may have margin and task, as in {EXAMPLE}; got {asked!r}")
    if asked["method"] == asked["with"]:
        raise ValueError(f"a comparison needs two different methods, got {asked['method']} twice.")
    margin = None if asked.get("margin") is None else check_margin(asked["margin"])
    task = asked.get("task")
    if task is not None and task not in tasks:
        raise ValueError(f"task={task}: the sweep has no such task{did_you_mean(str(task), tasks)}")
    first = _named(str(asked["method"]), methods)
    if str(asked["with"]) == ALL:
        others, several = list(methods), True
    else:
        others, several = _named(str(asked["with"]), methods), False
    if not several and len(others) > 1:
        sizes = ", ".join(other.label for other in others)
        raise ValueError(f"with={asked['with']}: the sweep has several sizes of it; name one of {sizes}, or all")
    pairs = [(one.label, other.label) for one in first for other in others]
    different = [(one, other) for one, other in pairs if one != other]
    for one, other in different or pairs:  # of a method that has one size, compared with itself: refused
        yield Question(method=one, reference=other, margin=margin, task=task)


def _named(name: str, methods: Sequence[Method]) -> list[Method]:
    """Return the methods of the sweep that a name means. Raises ValueError where there is none."""
    match = NAME.fullmatch(name)
    rank, budget = (match["rank"], _count(match["budget"])) if match else (None, None)
    chosen = [
        method
        for method in methods
        if match
        and method.adapter == match["adapter"]
        and (rank is None or method.rank == int(rank))
        and (budget is None or budget in method.budgets)
    ]
    if not chosen:
        raise ValueError(f"{name}: the sweep has no such method; it has {', '.join(of.label for of in methods)}")
    return chosen


def _count(text: str | None) -> object:
    try:
        return None if text is None else read_count(text)
    except PydanticCustomError:
        return text  # no budget of the sweep
