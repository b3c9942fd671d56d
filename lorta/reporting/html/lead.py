"""The first screen of a page's section: what was found in a few sentences, and one figure whose axes can be chosen."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lorta.analysis.questions import Answered
from lorta.analysis.significance import AVERAGE, Analysis, columns
from lorta.analysis.summary import Table
from lorta.reporting.best_first import best_first, score_of
from lorta.reporting.html import plots
from lorta.reporting.plots.panels import Panel, average_and_tasks, cost_panels, rank_panels, score_panels
from lorta.reporting.ranges import within_range
from lorta.reporting.styles import printed_name, printed_task
from lorta.reporting.tables import interval_text
from lorta.reporting.verdicts import PRINTED, verdict_sentences

MOST_SENTENCES = 3  # more do not leave room for the figure on a phone
MOST_NAMES = 5


class Choice(NamedTuple):
    """One figure: the score and the cost on its axes, its number among the packed plots, and what it says."""

    y: str
    x: str
    number: int
    summary: str


class Chooser(NamedTuple):
    """The figures that a reader can choose among; the first is shown."""

    choices: tuple[Choice, ...]

    @property
    def ys(self) -> tuple[str, ...]:
        """The scores, each once."""
        return tuple(dict.fromkeys(choice.y for choice in self.choices))

    @property
    def xs(self) -> tuple[str, ...]:
        """The costs, each once."""
        return tuple(dict.fromkeys(choice.x for choice in self.choices))


class Lead(NamedTuple):
    """What a section begins with; `more` are sentences to unfold."""

    sentences: tuple[str, ...]
    more: tuple[str, ...]
    chooser: Chooser | None
    panel: Panel | None  # the first choice


def lead(table: Table, analysis: Analysis, answered: Sequence[Answered], figures: list[dict[str, Any]]) -> Lead:
    """Return the first screen of a table; its figures are added to `figures`."""
    said = tuple(verdict_sentences([table], [answered], PRINTED) or _best_sentences(table, analysis))
    costs = cost_panels(table, analysis, average_and_tasks(table))
    panels = [*score_panels(table, analysis), *costs, *rank_panels(table, analysis)]
    first = panels[0] if panels else None
    return Lead(said[:MOST_SENTENCES], said[MOST_SENTENCES:], _chooser(panels, figures), first)


def _chooser(panels: Sequence[Panel], figures: list[dict[str, Any]]) -> Chooser | None:
    start = len(figures)
    figures += [plots.figure(panel) for panel in panels]
    choices = [
        Choice(panel.title, panel.x_label, start + place, plots.summary(panel)) for place, panel in enumerate(panels)
    ]
    return Chooser(tuple(choices)) if choices else None


def _best_sentences(table: Table, analysis: Analysis) -> list[str]:
    """Return which method is the best of a table without questions, and which are not known to be worse."""
    column, (best, *rest) = columns(table)[-1], best_first(table)
    value = score_of(table.rows[best], column)
    if value is None:
        return [f"No method has a {'score on every task' if column == AVERAGE else 'score'}."]
    interval = analysis.intervals.get((best, column))
    text = interval_text(interval and within_range(interval, table, column), table.decimals)
    name = "average" if column == AVERAGE else printed_task(table.short(column), table.metrics[column])
    scored = [number for number in rest if score_of(table.rows[number], column) is not None]
    if column == AVERAGE and rest and not scored:
        return [f"Only {_name(table, best)} has a score on every task, {name} {text or f'{value:.{table.decimals}f}'}."]
    sentences = [f"Best: {_name(table, best)}, {name} {text or f'{value:.{table.decimals}f}'}."]
    tied = [number for number in rest if (number, column) in analysis.ties]
    if tied:
        names = ", ".join(_name(table, number) for number in tied[:MOST_NAMES])
        others = f" and {len(tied) - MOST_NAMES} more" if len(tied) > MOST_NAMES else ""
        sentences.append(f"Not significantly different from it: {names}{others}.")
    elif scored and not analysis.comparisons:
        sentences.append("Nothing tells whether the differences are more than chance: there is one seed only.")
    return sentences


def _name(table: Table, number: int) -> str:
    row = table.rows[number]
    return printed_name(row.adapter, row.rank, row.variant)
