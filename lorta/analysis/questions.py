"""The answers to what a study asked: one verdict for each question and table, with the interval behind it.

Both methods of a question are rows of one table. Their scores are compared over the seeds that both have on every task,
and over items where both know them. All questions of the tables are one study: its correction counts those too that no
run answers yet. A question with a least and a most number of seeds is answered by the rule that may look after each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lorta.analysis.equivalence import Answer, Difference, average, judge, summarise
from lorta.analysis.item_scores import ItemScores
from lorta.analysis.resampling import Scores
from lorta.analysis.sequential import SeedPlan, decide, looks
from lorta.analysis.significance import scores_of_row
from lorta.analysis.summary import Row, Table
from lorta.records.record import Question, RunRecord

TWO_SEEDS = "a comparison needs two seeds or more that both methods have"


@dataclass(frozen=True)
class Answered:
    """A question in one table. `answer` is None where there is none yet, and `note` says why.

    Of a question that adds seeds, `note` says how its rule stands, and `wanted` how many seeds it needs next in all,
    None where it is done.
    """

    question: Question
    answer: Answer | None
    note: str = ""
    wanted: int | None = None


class _Pair(NamedTuple):
    """A question's paired differences by task in one table, or why there are none."""

    question: Question
    differences: tuple[Scores, ...]
    higher_is_better: bool
    note: str


def stated(records: Iterable[RunRecord]) -> tuple[Question, ...]:
    """Return the questions that records were made for, each once."""
    ordered = sorted(records, key=lambda record: record.run_id)
    return tuple(dict.fromkeys(question for record in ordered for question in record.questions))


def answer_questions(
    tables: Sequence[Table], questions: Sequence[Question], items: ItemScores
) -> list[tuple[Answered, ...]]:
    """Return, for each table, the answers to the questions whose methods it has.

    A question whose methods stand together in no table is in the first one, with a note.
    """
    asked = [
        [pair for question in questions if (pair := _pair(table, question, items)) is not None] for table in tables
    ]
    known = {pair.question for pairs in asked for pair in pairs}
    missing = [question for question in questions if question not in known]
    if tables:
        higher = tables[0].higher_is_better
        asked[0] += [_Pair(question, (), higher, _absent(tables, question)) for question in missing]
    answers = iter(_answers([pair for pairs in asked for pair in pairs]))
    return [tuple(next(answers) for _ in pairs) for pairs in asked]


def difference(table: Table, question: Question, items: ItemScores) -> Difference | None:
    """Return the paired differences of a question's methods over the seeds that both have, None without any."""
    pair = _pair(table, question, items)
    return None if pair is None else _difference(pair)


def rows_named(table: Table, label: str) -> list[Row]:
    """Return the rows of a method: the one of this very name, or all of its variants."""
    exact = [row for row in table.rows if row.label == label]
    return exact or [row for row in table.rows if row.label.partition(" (")[0] == label]


def _absent(tables: Sequence[Table], question: Question) -> str:
    names = question.method, question.reference
    absent = [name for name in names if not any(rows_named(table, name) for table in tables)]
    return f"no finished run of {' and of '.join(absent)}" if absent else "the two methods share no table"


def _pair(table: Table, question: Question, items: ItemScores) -> _Pair | None:
    """Return the question's differences in a table, None where the table lacks one of its methods."""
    names = question.method, question.reference
    both = [rows_named(table, name) for name in names]
    if not all(both) or (question.task is not None and question.task not in table.tasks):
        return None
    several = [f"{name} is {len(rows)} rows" for name, rows in zip(names, both, strict=True) if len(rows) > 1]
    higher = table.higher_is_better
    if several:
        return _Pair(question, (), higher, f"{' and '.join(several)} of the table: name one as the table does")
    tasks = table.tasks if question.task is None else (question.task,)
    one, other = (scores_of_row(table, rows[0], items) for rows in both)
    lacking = [table.short(task) for task in tasks if task not in one or task not in other]
    if lacking:
        return _Pair(question, (), higher, f"no score of both methods on {', '.join(lacking)}")
    seeds = set.intersection(*(set(of[task].seeds) for of in (one, other) for task in tasks))
    common = tuple(sorted(seeds))
    return _Pair(question, tuple(one[task].at(common).minus(other[task].at(common)) for task in tasks), higher, "")


def _answers(pairs: Sequence[_Pair]) -> Iterator[Answered]:
    """Yield the answers of one study in the order of its pairs; all of them have one rule about seeds."""
    margins = [pair.question.margin for pair in pairs]
    plan = next((SeedPlan(*pair.question.seeds) for pair in pairs if pair.question.seeds), None)
    if plan is None:
        fixed = judge([_difference(pair) for pair in pairs], margins)
        for pair, answer in zip(pairs, fixed, strict=True):
            yield Answered(pair.question, answer, "" if answer else pair.note or TWO_SEEDS)
        return
    paths = [looks(pair.differences, plan, pair.higher_is_better) for pair in pairs]
    for pair, decision in zip(pairs, decide(paths, margins, plan), strict=True):
        wanted = None if decision.done else decision.seeds
        yield Answered(pair.question, decision.answer, pair.note or decision.reason.rstrip("."), wanted)


def _difference(pair: _Pair) -> Difference | None:
    if not pair.differences or len(pair.differences[0].seeds) < 2:
        return None
    return average([summarise(scores, pair.higher_is_better) for scores in pair.differences])
