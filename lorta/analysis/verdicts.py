"""Whether a measured score reproduces a published one.

Comparable is a cell of ours whose adapter, rank and task are those of the published number, and whose
- model, task, metric and evaluation split are the same, on the real data, all rows of it;
- rule for the scored epoch is the same and known;
- parameters, counted as the paper counts them, are as many as it prints, to its rounding;
and for which the ledger names no other reason. Each reason that fails is named. The verdicts:
- not run: no run of that adapter, rank and task;
- not comparable: there is one, but see its reasons; if its model is another, its score is not shown either;
- reproduced: the 95 % interval of the difference lies within the column's margin (1 point) on either side of zero,
  which is two one-sided tests at 2.5 % (Schuirmann 1987): not finding a difference is no proof that there is none;
- differs: the interval leaves out zero, and is not within the margin;
- undecided: the interval holds zero and is wider than that.
The difference is judged on the variance between seeds of both sides (Welch 1947), not on the choice of rows: both were
scored on the same ones. A median's variance is pi / 2 times a mean's, as for normal errors. A published number without
a spread is taken as exact but for its rounding. An interval of our own score, with scored rows, is shown beside it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lorta.analysis.clusters import common_clusters
from lorta.analysis.item_scores import ItemScores
from lorta.analysis.published import ALL, Column, Line, counted_parameters, parameter_range
from lorta.analysis.resampling import (
    CONFIDENCE,
    Interval,
    Resampler,
    Scores,
    Variance,
    critical_value,
    mean_interval,
    pool,
)
from lorta.analysis.summary import POINTS, group
from lorta.records.record import RunRecord

Kind = Literal["reproduced", "differs", "undecided", "not comparable", "not run", "no published value"]
OF_MEDIAN = math.pi / 2  # its variance over the mean's, for normal errors and many seeds
KNOWN = 1e9  # degrees of freedom of a variance that is not estimated


@dataclass(frozen=True)
class Measured:
    """Our runs of a published cell, in the column's unit: one value a seed; `interval` is None for one seed alone."""

    value: float
    values: tuple[float, ...]
    interval: Interval | None
    parameters: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """A published cell judged. `difference` is measured minus published; `reason` is a sentence part, often empty."""

    kind: Kind
    reason: str
    measured: Measured | None = None
    difference: Interval | None = None


@dataclass(frozen=True)
class Evidence:
    """Finished runs by (adapter, rank, task), and what is known of their items."""

    runs: Mapping[tuple[str, int | None, str], Sequence[RunRecord]]
    items: ItemScores
    resampler: Resampler

    @classmethod
    def of(cls, records: Iterable[RunRecord], items: ItemScores) -> "Evidence":
        """Take the finished ones of these records."""
        runs_of: defaultdict[tuple[str, int | None, str], list[RunRecord]] = defaultdict(list)
        for record in records:
            own = record.imported is None and not record.has_separate_seeds
            if record.status == "success" and record.adapter and record.task and own:
                for rank in {record.adapter.rank, None}:  # None as well: a published rank may not be known
                    runs_of[record.adapter.name, rank, record.task.name].append(record)
        return cls(runs_of, items, Resampler())


def judge(line: Line, column: str, evidence: Evidence) -> Verdict:
    """Return the verdict on one cell. Of several cells of ours the most comparable counts."""
    setting, published = line.table.columns.get(column), line.row.scores.get(column)
    if setting is None:
        return Verdict("not run", "the table that it is quoted from has no such column")
    candidates = _candidates(line, setting, evidence)
    if not candidates:
        absent = "this project has no such task or metric" if setting.task is None or setting.metric is None else ""
        return Verdict("not run", absent or ("" if line.row.adapter else "this project has no such method"))
    judged = sorted(candidates, key=lambda runs: (len(_reasons(line, column, runs)), -len(runs)))
    runs, reasons = judged[0], _reasons(line, column, judged[0])
    if not reasons and sum(not _reasons(line, column, other) for other in judged) > 1:
        reasons = ["several settings of it were run; choose one with --records"]
    same = runs[0].model is not None and runs[0].model.name == line.row.model
    measured = _measured(line, setting, runs, evidence) if same else None  # another model's score would mislead here
    if published is None:
        return Verdict("no published value", "; ".join(reasons) if measured else "", measured)
    if reasons or measured is None:
        return Verdict("not comparable", "; ".join(reasons) or "the metric of a run has no value", measured)
    return _decide(line, setting, measured, published.value, published.spread)


def _candidates(line: Line, column: Column, evidence: Evidence) -> list[list[RunRecord]]:
    """Return the runs of that adapter, rank, task and metric, by cell."""
    candidates = [
        record
        for record in evidence.runs.get((line.row.adapter or "", line.row.rank, column.task or ""), ())
        if record.task and record.metrics and column.metric in record.metrics.get(record.task.split_primary, {})
    ]
    return list(group(candidates, lambda record: record.cell_id).values())


def _reasons(line: Line, column: str, runs: Sequence[RunRecord]) -> list[str]:
    """Return why these runs cannot stand beside the published cell."""
    row, table, run = line.row, line.table, runs[0]
    assert run.task is not None and run.model is not None and run.protocol is not None and run.adapter is not None
    reasons = [row.not_comparable[key] for key in (ALL, column) if key in row.not_comparable]
    if row.rank is None and run.adapter.rank is not None:
        reasons.append(f"the rank is {run.adapter.rank}, published unknown")
    same_model = row.model == run.model.name
    if not same_model:
        reasons.append(f"the model is {run.model.name}, published {row.model or 'unknown'}")
    if run.task.source == "embedded":
        reasons.append("the data is the embedded language")
    if run.task.max_train_samples or run.task.max_eval_samples:
        reasons.append("not all rows were used")
    split = str(run.config.get("task", {}).get("evaluation_split", run.task.split_primary))
    theirs = table.columns[column].split or table.split
    if split != theirs:
        reasons.append(f"the split is {split}, published {theirs or 'unknown'}")
    if run.protocol.selection != row.selection:
        reasons.append(f"the {run.protocol.selection} epoch is scored, published {row.selection or 'unknown'}")
    return [*reasons, *(_parameter_reasons(line, run) if same_model else [])]


def _parameter_reasons(line: Line, run: RunRecord) -> list[str]:
    allowed = parameter_range(line.row.parameters)
    if allowed is None or line.row.counted is None:
        return ["it is unknown which parameters the published count includes"]
    count = _count(line, run)
    if not allowed[0] <= count <= allowed[1]:
        return [f"{count:,} parameters ({' + '.join(line.row.counted)}), published {line.row.parameters}"]
    return []


def _count(line: Line, run: RunRecord) -> int:
    assert run.params is not None
    parts = {"adapter": run.params.adapter, "head": run.params.head, "other": run.params.other_trainable}
    return counted_parameters(parts, line.row.counted or ("adapter",))  # type: ignore[arg-type]


def _measured(line: Line, column: Column, runs: Sequence[RunRecord], evidence: Evidence) -> Measured | None:
    ordered = sorted(runs, key=lambda run: run.seed)
    scale = POINTS if column.unit == "points" else 1.0
    values: list[float] = []
    for run in ordered:
        score = run.metrics[run.task.split_primary][column.metric or ""] if run.metrics and run.task else None
        if score is None or score.value is None:
            return None
        values.append(score.value * scale)
    primary = all(run.task is not None and run.task.metric_primary == column.metric for run in ordered)
    lines = [evidence.items.get(run.run_id) if primary else None for run in ordered]
    even = None not in lines and len({len(of_run or ()) for of_run in lines}) == 1
    items = np.array(lines) * scale if even else None
    scores = Scores(tuple(run.seed for run in ordered), np.array(values), items, clusters=common_clusters(lines))
    median = line.row.statistic == "median"
    middle = float(np.median(values) if median else np.mean(values))
    spread = evidence.resampler.spread(column.task or "", scores)
    interval = mean_interval([spread], middle, math.sqrt(OF_MEDIAN) if median else 1.0) if spread else None
    return Measured(middle, tuple(values), interval, _count(line, ordered[0]), tuple(run.run_id for run in ordered))


def _decide(line: Line, column: Column, measured: Measured, published: float, spread: float | None) -> Verdict:
    if len(measured.values) < 2:
        return Verdict("undecided", "only one seed was run, so the variance between seeds is not known", measured)
    inflation = OF_MEDIAN if line.row.statistic == "median" else 1.0
    known = spread is not None and line.row.spread == "std" and (line.row.seeds or 0) > 1
    theirs = spread**2 * inflation / (line.row.seeds or 1) if spread is not None and known else 0.0
    rounding = (0.5 * 10.0**-column.decimals) ** 2 / 3
    difference = measured.value - published

    def interval(seeds: int) -> Interval:
        ours = float(np.var(measured.values, ddof=1)) * inflation / seeds
        parts = [
            Variance(ours, seeds - 1.0),
            Variance(theirs, (line.row.seeds or 2) - 1.0),
            Variance(rounding, KNOWN),
        ]
        whole = pool(parts)
        error, shares = math.sqrt(whole.value), (Variance(1.0, whole.freedom),)
        half = critical_value(shares, CONFIDENCE) * error
        return Interval(difference, difference - half, difference + half, error, shares)

    bounds = interval(len(measured.values))
    doubt = "" if known else "the published standard deviation is unknown, so the number is taken as exact"
    if max(-bounds.low, bounds.high) <= column.margin:
        return Verdict("reproduced", doubt, measured, bounds)
    if bounds.low > 0 or bounds.high < 0:
        return Verdict("differs", doubt, measured, bounds)
    return Verdict("undecided", doubt, measured, bounds)
