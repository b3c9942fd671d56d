"""What a table of scores can and cannot tell apart: intervals, the interquartile mean, and ties with the best.

A method is bold in a column when it is the best or cannot be separated from the best at 5 %: differences to the best
are paired by seed and by item (lorta.analysis.resampling), and their p values are corrected over the column's methods
(Holm 1979). A column where nothing can be tested has nothing bold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from lorta.analysis.clusters import common_clusters
from lorta.analysis.imported import is_counted
from lorta.analysis.item_scores import ItemScores
from lorta.analysis.resampling import (
    Array,
    Interval,
    Resampler,
    Scores,
    mean_interval,
    middle_interval,
)
from lorta.analysis.summary import POINTS, Row, Table

AVERAGE = "average"
LEVEL = 0.05
Place = tuple[int, str]  # (row, column); a column is a task or AVERAGE


@dataclass(frozen=True)
class Comparison:
    """A row against the best of its column; `interval` is row minus best, in the table's unit."""

    row: int
    best: int
    column: str
    interval: Interval
    p_holm: float
    mcnemar: tuple[float, ...]  # exact p by seed, where items are right or wrong


@dataclass(frozen=True)
class Analysis:
    """All that is inferred from one table. `with_items` are the rows whose items are known for every task."""

    intervals: Mapping[Place, Interval]
    middle: Mapping[int, Interval]  # interquartile mean by row
    comparisons: tuple[Comparison, ...]
    ties: frozenset[Place]
    with_items: tuple[int, ...]


def analyse(table: Table, items: ItemScores) -> Analysis:
    """Return intervals and comparisons of a table, from its records and what is known of single items."""
    resampler = Resampler()
    scores = _prepared([scores_of_row(table, row, items) for row in table.rows], resampler)
    spreads = [{task: resampler.spread(task, cell) for task, cell in of_row.items()} for of_row in scores]
    intervals: dict[Place, Interval] = {}
    middle: dict[int, Interval] = {}
    for number, row in enumerate(table.rows):
        cell = {task: spread for task, spread in spreads[number].items() if spread is not None}
        for task, spread in cell.items():
            intervals[number, task] = mean_interval([spread], row.cells[task].mean or 0.0)
        if row.average.mean is not None and len(cell) == len(table.tasks) > 1:
            intervals[number, AVERAGE] = mean_interval(list(cell.values()), row.average.mean)
            middle[number] = middle_interval(list(cell.values()))
    known = tuple(row for row, of in enumerate(scores) if of and all(cell.items is not None for cell in of.values()))
    comparisons = _comparisons(table, scores, resampler)
    return Analysis(intervals, middle, comparisons, _ties(comparisons), known)


def columns(table: Table) -> tuple[str, ...]:
    """Return the tasks of a table, and the average if there are several."""
    return (*table.tasks, AVERAGE) if len(table.tasks) > 1 else table.tasks


def scores_of_row(table: Table, row: Row, items: ItemScores) -> dict[str, Scores]:
    """Return the row's scores by task in the table's unit; a task without a mean is left out."""
    scores: dict[str, Scores] = {}
    for task in table.tasks:
        cell = row.cells[task]
        if cell.mean is None:
            continue
        of_task = sorted((run for run in row.runs if run.task.name == task), key=lambda run: run.record.seed)
        lines = [items.get(run.record.run_id) for run in of_task]
        even = None not in lines and len({len(line or ()) for line in lines}) == 1
        items_of = np.array(lines) * table.scale if even else None
        scores[task] = Scores(cell.seeds, np.array(cell.values), items_of, clusters=common_clusters(lines))
    return scores


def _prepared(scores: Sequence[dict[str, Scores]], resampler: Resampler) -> Sequence[dict[str, Scores]]:
    """Return the scores of all rows with their items resampled, a task at a time."""
    prepared: list[dict[str, Scores]] = [{} for _ in scores]
    for task in dict.fromkeys(task for of_row in scores for task in of_row):
        rows = [row for row, of_row in enumerate(scores) if task in of_row]
        for row, ready in zip(rows, resampler.prepare(task, [scores[row][task] for row in rows]), strict=True):
            prepared[row][task] = ready
    return prepared


def _comparisons(table: Table, scores: Sequence[Mapping[str, Scores]], resampler: Resampler) -> tuple[Comparison, ...]:
    comparisons: list[Comparison] = []
    for column in columns(table):
        tasks = table.tasks if column == AVERAGE else (column,)
        best = _best(table, column)
        if best is None:
            continue
        tested: dict[int, tuple[Interval, tuple[float, ...]]] = {}
        for row, of_row in enumerate(scores):
            if row != best and all(task in of_row and task in scores[best] for task in tasks):
                differences = {task: _difference(of_row[task], scores[best][task]) for task in tasks}
                if (interval := _paired_interval(differences, resampler)) is not None:
                    exact = column != AVERAGE and not any(map(_counted, (table.rows[row], table.rows[best])))
                    tested[row] = interval, _mcnemar(of_row[column], scores[best][column]) if exact else ()
        corrected = holm([interval.p_of_zero for interval, _ in tested.values()])
        comparisons += [
            Comparison(row, best, column, interval, p, mcnemar)
            for (row, (interval, mcnemar)), p in zip(tested.items(), corrected, strict=True)
        ]
    return tuple(comparisons)


def _counted(row: Row) -> bool:
    """Return whether it is not known which rows a method answered right: no two answers to one row are known."""
    return any(is_counted(run.record) for run in row.runs)


def _best(table: Table, column: str) -> int | None:
    cells = [row.average if column == AVERAGE else row.cells[column] for row in table.rows]
    known = [(cell.mean, number) for number, cell in enumerate(cells) if cell.mean is not None]
    return (max if table.higher_is_better else min)(known, key=lambda item: item[0])[1] if known else None


def _difference(scores: Scores, best: Scores) -> Scores | None:
    """Return the paired difference over the seeds that both have."""
    common = tuple(sorted(set(scores.seeds) & set(best.seeds)))
    return scores.at(common).minus(best.at(common)) if common else None


def _paired_interval(differences: Mapping[str, Scores | None], resampler: Resampler) -> Interval | None:
    known = {task: scores for task, scores in differences.items() if scores is not None}
    spreads = {task: spread for task, scores in known.items() if (spread := resampler.spread(task, scores)) is not None}
    if len(spreads) < len(differences):
        return None
    return mean_interval(list(spreads.values()), float(np.mean([scores.values.mean() for scores in known.values()])))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979): step down, never below the one before, at most 1.

    statsmodels' multipletests gives the same, but collects garbage at every call, which costs seconds among thousands
    of records.
    """
    order = np.argsort(values, kind="stable")
    steps = np.asarray(values, dtype=float)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    return [float(value) for value in corrected]


def _mcnemar(scores: Scores, best: Scores) -> tuple[float, ...]:
    common = tuple(sorted(set(scores.seeds) & set(best.seeds)))
    one, other = scores.at(common), best.at(common)
    if one.items is None or other.items is None or one.items.shape != other.items.shape:
        return ()
    if not set(np.unique([one.items, other.items])) <= {0.0, POINTS}:
        return ()
    return tuple(mcnemar_p(first > 0, second > 0) for first, second in zip(one.items, other.items, strict=True))


def mcnemar_p(first: Array, second: Array) -> float:
    """Return the exact two-sided p of McNemar's test for right (True) and wrong answers to the same items."""
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    discordant = only_first + only_second  # binomial with 1/2, as statsmodels' mcnemar(exact=True), which loads pandas
    return float(min(1.0, 2 * bdtr(min(only_first, only_second), discordant, 0.5))) if discordant else 1.0


def _ties(comparisons: Sequence[Comparison]) -> frozenset[Place]:
    best = {(pair.best, pair.column) for pair in comparisons}
    return frozenset(best | {(pair.row, pair.column) for pair in comparisons if pair.p_holm > LEVEL})
