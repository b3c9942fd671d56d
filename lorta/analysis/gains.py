"""What training gained against the untouched model, the backbone before an adapter is attached, on the same rows.

Tasks that score the backbone themselves have a metric `base_PRIMARY` beside their primary one. The difference is paired
over seeds, whose untouched model is the same one, and over scored rows; interval and verdict are those of the
comparisons of a study (lorta.analysis.equivalence), corrected over all methods and tasks of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorta.analysis.equivalence import Answer, judge, summarise
from lorta.analysis.item_scores import Items, ItemScores, base_score
from lorta.analysis.resampling import Scores
from lorta.analysis.significance import scores_of_row
from lorta.analysis.summary import Row, Table


@dataclass(frozen=True)
class Gain:
    """A method's mean score on a task and the untouched model's, in the table's unit.

    `answer` says better, worse or undecided, None with a single seed: positive values are gains, of losses too.
    """

    row: Row
    task: str
    score: float
    untouched: float
    answer: Answer | None


def gains(table: Table, items: ItemScores) -> tuple[Gain, ...]:
    """Return the gain of each row and task whose runs all have a score of the untouched model, in the table's order."""
    compared: list[tuple[Row, str, Scores, Scores]] = []
    for row in table.rows:
        if all(base_score(run.record) is None for run in row.runs):
            continue
        scores = scores_of_row(table, row, items)
        for task in (task for task in table.tasks if task in scores):
            untouched = _untouched(table, row, task, scores[task], items)
            if untouched is not None:
                compared.append((row, task, scores[task], untouched))
    several = [len(scores.seeds) > 1 for _, _, scores, _ in compared]
    differences = [
        summarise(scores.minus(untouched), table.higher_is_better)
        for (_, _, scores, untouched), enough in zip(compared, several, strict=True)
        if enough
    ]
    answers = iter(judge(differences, [None] * len(differences)))
    return tuple(
        Gain(row, task, float(scores.values.mean()), float(base.values.mean()), next(answers) if enough else None)
        for (row, task, scores, base), enough in zip(compared, several, strict=True)
    )


def _untouched(table: Table, row: Row, task: str, scores: Scores, items: ItemScores) -> Scores | None:
    runs = sorted((run for run in row.runs if run.task.name == task), key=lambda run: run.record.seed)
    values = [base_score(run.record) for run in runs]
    if not runs or None in values:
        return None
    lines = [items.get(run.record.run_id) for run in runs]
    rows: Sequence[tuple[float, ...] | None] = [line.base if isinstance(line, Items) else None for line in lines]
    even = scores.items is not None and all(of is not None and len(of) == scores.items.shape[1] for of in rows)
    of_rows = np.array(rows, dtype=float) * table.scale if even else None
    return Scores(scores.seeds, np.array(values, dtype=float) * table.scale, of_rows, clusters=scores.clusters)
