"""What the figure of a study shows: scores over trained parameters, beside the reference and its margin.

Every bar is the interval of a difference to the reference, paired by seed and, where known, by scored row, drawn about
the reference's score: so it can be read against the band. The bars of a question are those of its verdict. Pure
functions; no plotting library.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from lorta.analysis.equivalence import LEVEL, half_width
from lorta.analysis.item_scores import ItemScores
from lorta.analysis.questions import Answered, difference, rows_named
from lorta.analysis.significance import AVERAGE
from lorta.analysis.summary import Row, Table, group
from lorta.records.record import Question
from lorta.reporting.ranges import Ends, metric_ends
from lorta.reporting.sizes import trained_parameters
from lorta.reporting.styles import family_place, printed_name, printed_task

MOST_PANELS = 4  # a study that asks about more references and tasks has no such figure: it would show nothing
FAR = 20  # times the next larger size: such a method is a line across, as one of no size is
BEYOND = 1.0  # spans of what the questions are about; what is farther away is named below the figure


class StudyPoint(NamedTuple):
    """One row of the table with the interval of its difference.

    `inner` decides for equivalence, `low` and `high` for better or worse; `verdict` is empty if no question asked.
    """

    method: str
    name: str
    size: int
    score: float
    low: float | None = None
    high: float | None = None
    inner: Ends | None = None
    verdict: str = ""


@dataclass(frozen=True)
class StudyPanel:
    """All rows of a table against one reference. `lines` have a size that the axis does not show."""

    title: str
    y_label: str
    reference: StudyPoint
    margin: float | None
    points: tuple[StudyPoint, ...]
    lines: tuple[StudyPoint, ...]
    outside: tuple[StudyPoint, ...]  # of scores that the axis does not show
    y_range: Ends


def study_panels(table: Table, answered: Sequence[Answered], items: ItemScores) -> list[StudyPanel]:
    """Return a panel for each reference and task that most of the answered questions are about, none of too many."""
    known = [of for of in answered if of.answer is not None]
    about = group(known, lambda of: (of.question.reference, of.question.task)).values()
    asked = [of for of in about if len(of) == max(map(len, about))]
    panels = [_panel(table, of, items) for of in asked] if len(asked) <= MOST_PANELS else []
    return [panel for panel in panels if panel is not None]


def _panel(table: Table, answered: Sequence[Answered], items: ItemScores) -> StudyPanel | None:
    question = answered[0].question
    (reference,) = rows_named(table, question.reference)
    column = question.task or (table.tasks[0] if len(table.tasks) == 1 else AVERAGE)
    score = _score(reference, column)
    if score is None:
        return None
    answer_of = {rows_named(table, of.question.method)[0].label: of for of in answered}
    others = [
        _point(table, row, question, answer_of.get(row.label), score, items)
        for row in table.rows
        if row is not reference
    ]
    known = sorted((point for point in others if point), key=lambda point: (family_place(point.method), point.size))
    margins = [of.question.margin for of in answered if of.question.margin is not None]
    margin = max(margins, default=None)
    origin = StudyPoint(reference.adapter, _name(reference), trained_parameters(reference), score)
    ends = _shown(origin, margin, known, metric_ends(table, column))
    inside = [point for point in known if point.verdict or ends[0] <= point.score <= ends[1]]
    lines = _without_place([origin, *inside])
    return StudyPanel(
        "average of the tasks" if column == AVERAGE else printed_task(table.short(column), table.metrics[column]),
        "score (metric x 100)" if table.higher_is_better else "score, lower is better",
        origin,
        margin,
        tuple(point for point in inside if point not in lines),
        tuple(lines),
        tuple(point for point in known if point not in inside),
        ends,
    )


def _score(row: Row, column: str) -> float | None:
    return (row.average if column == AVERAGE else row.cells[column]).mean


def _name(row: Row) -> str:
    return printed_name(row.adapter, row.rank, row.variant)


def _point(
    table: Table, row: Row, question: Question, of: Answered | None, score: float, items: ItemScores
) -> StudyPoint | None:
    """Return a row at the reference's score plus its difference; None where the two cannot be compared."""
    sign = 1 if table.higher_is_better else -1
    bare = StudyPoint(row.adapter, _name(row), trained_parameters(row), score)
    if of is not None and of.answer is not None:
        answer = of.answer
        inner = _about(score, sign, *answer.inner) if answer.margin is not None else None
        low, high = _about(score, sign, *answer.interval)
        return bare._replace(
            score=score + sign * answer.value, low=low, high=high, inner=inner, verdict=str(answer.verdict)
        )
    pair = difference(table, Question(method=row.label, reference=question.reference, task=question.task), items)
    if pair is None:
        return None
    middle, half = float(pair.mean), float(half_width(pair, LEVEL / 2))
    low, high = _about(score, sign, middle - half, middle + half)
    return bare._replace(score=score + sign * middle, low=low, high=high)


def _about(score: float, sign: int, low: float, high: float) -> Ends:
    ends = sorted((score + sign * low, score + sign * high))
    return ends[0], ends[1]


def _shown(reference: StudyPoint, margin: float | None, points: Iterable[StudyPoint], ends: Ends | None) -> Ends:
    """Return the ends of the axis: what the questions are about, and the scores of other methods near it."""
    others = list(points)
    asked = [(point.low, point.high) for point in others if point.verdict]
    values = [reference.score - (margin or 0.0), reference.score + (margin or 0.0)]
    values += [end for bounds in asked for end in bounds if end is not None]
    low, high = min(values), max(values)
    reach = BEYOND * (high - low)
    near = [point.score for point in others if low - reach <= point.score <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    room = (high - low) / 20 or 0.5
    high += 3 * room  # for words above a bar
    if ends is None:
        return low - room, high + room
    return max(low, ends[0]) - room, min(high, ends[1]) + room


def _without_place(points: Sequence[StudyPoint]) -> list[StudyPoint]:
    """Return the points whose sizes a logarithmic axis cannot show: none, and far larger than all others."""
    sizes = sorted({point.size for point in points if point.size > 0})
    far = next((size for smaller, size in pairwise(sizes) if size > FAR * smaller), None)
    return [point for point in points if point.size == 0 or (far is not None and point.size >= far)]
