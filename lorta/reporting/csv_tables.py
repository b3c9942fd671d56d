"""Tables as CSV: wide (one line per row of a table) and long (one line per run and metric). Means are not rounded."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from lorta.analysis.resampling import Interval
from lorta.analysis.significance import AVERAGE, Analysis
from lorta.analysis.summary import Cell, Table
from lorta.records.record import RunRecord
from lorta.records.sections import Score
from lorta.reporting.captions import title
from lorta.reporting.diagnostic_tables import check_columns
from lorta.reporting.notes import asked_columns, spread_columns
from lorta.reporting.ranges import difference_within, within_range

COUNTS = ("adapter_parameters", "head_parameters", "other_trainable_parameters")
DECIMALS = 4  # of intervals
Value = str | int | float | bool | None

LONG_COLUMNS: dict[str, Callable[[RunRecord], Value]] = {
    "run_id": lambda record: record.run_id,
    "cell_id": lambda record: record.cell_id,
    "status": lambda record: record.status,
    "failure": lambda record: record.failure and record.failure.kind,
    "adapter": lambda record: record.adapter.name if record.adapter else record.choices.get("adapter"),
    "rank": lambda record: record.adapter and record.adapter.rank,
    "learning_rate": lambda record: record.adapter and record.adapter.learning_rate,
    "head_learning_rate": lambda record: record.adapter and record.adapter.head_learning_rate,
    "model": lambda record: record.model.name if record.model else record.choices.get("model"),
    "task": lambda record: record.task.name if record.task else record.choices.get("task"),
    "source": lambda record: record.task and record.task.source,
    "protocol": lambda record: record.task and record.task.protocol,
    "max_train_samples": lambda record: record.task and record.task.max_train_samples,
    "max_eval_samples": lambda record: record.task and record.task.max_eval_samples,
    "selection": lambda record: record.protocol and record.protocol.selection,
    "epochs": lambda record: record.protocol and record.protocol.epochs,
    "max_steps": lambda record: record.protocol and record.protocol.max_steps,
    "tuned": lambda record: record.protocol and record.protocol.tuned,
    "seed": lambda record: record.seed,
    "adapter_parameters": lambda record: record.params and record.params.adapter,
    "head_parameters": lambda record: record.params and record.params.head,
    "other_trainable_parameters": lambda record: record.params and record.params.other_trainable,
    "changed_base_weights": lambda record: record.params and record.params.changed,
    "adapter_bytes": lambda record: record.storage and record.storage.adapter_bytes,
    "host_rss_peak_bytes": lambda record: record.memory and record.memory.host_rss_peak_bytes,
    "train_peak_allocated_bytes": lambda record: record.memory and record.memory.train_peak_allocated_bytes,
    "train_s": lambda record: record.time and record.time.train_s,
    "wall_s": lambda record: record.time and record.time.wall_s,
    "env_fingerprint": lambda record: record.env_fingerprint,
}


def to_csv(tables: Sequence[Table], analyses: Sequence[Analysis]) -> str:
    """Return the wide form: scores in points of 100, losses as they are, 95 % intervals, empty if none.

    Intervals are cut where the metric ends, as in the other forms of a report.
    """
    tasks = sorted({task for table in tables for task in table.tasks})
    columns = [f"{task} {part}" for task in [*tasks, AVERAGE] for part in ("mean", "std", "low95", "high95", "seeds")]
    counts = [f"{name}_{end}" for name in COUNTS for end in ("low", "high")]
    middle = [f"interquartile_mean{end}" for end in ("", " low95", " high95")]
    lines: list[Sequence[Value]] = [["table", "adapter", "rank", "variant", *counts, *columns, *middle, "train_s"]]
    for table, analysis in zip(tables, analyses, strict=True):
        name = title(table)
        for number, row in enumerate(table.rows):
            counts_of = (*row.adapter_parameters, *row.head_parameters, *row.other_parameters)
            numbers = [count if row.sizes_known else None for count in counts_of]
            cells = {**{task: row.cells.get(task, Cell(None)) for task in tasks}, AVERAGE: row.average}
            scores: list[Value] = []
            for column, cell in cells.items():
                interval = analysis.intervals.get((number, column))
                scores += _cell_values(cell, interval and within_range(interval, table, column))
            identity = [name, row.adapter, row.rank, row.variant]
            iqm = analysis.middle.get(number)
            iqm = iqm and within_range(iqm, table, AVERAGE)
            lines.append([*identity, *numbers, *scores, iqm and _rounded(iqm.value), *_bounds(iqm), row.train_s.mean])
    return csv_text(lines)


def to_comparison_csv(tables: Sequence[Table], analyses: Sequence[Analysis]) -> str:
    """Return one line per method and column that was compared with the column's best, in the column's unit."""
    names = ("table", "column", "adapter", "best", "difference", "low95", "high95", "p", "p_holm", "tie")
    lines: list[Sequence[Value]] = [[*names, "mcnemar_p_by_seed"]]
    for table, analysis in zip(tables, analyses, strict=True):
        name = title(table)
        for pair in analysis.comparisons:
            identity = [name, pair.column, table.rows[pair.row].label, table.rows[pair.best].label]
            low, high = difference_within(
                (pair.interval.low, pair.interval.high), table, pair.column, pair.interval.alike
            )
            p = [float(f"{value:.4g}") for value in (pair.interval.p_of_zero, pair.p_holm)]
            tie = (pair.row, pair.column) in analysis.ties
            exact = " ".join(f"{value:.4g}" for value in pair.mcnemar)
            lines.append([*identity, _rounded(pair.interval.value), _rounded(low), _rounded(high), *p, tie, exact])
    return csv_text(lines)


def to_long_csv(records: Iterable[RunRecord]) -> str:
    """Return the long form, scores on the metric's own scale; a run without a result has one line without a metric."""
    ordered = sorted(records, key=lambda record: record.run_id)
    columns = {**LONG_COLUMNS, **asked_columns(ordered), **check_columns(ordered), **spread_columns(ordered)}
    lines: list[Sequence[Value]] = [[*columns, "split", "metric", "value", "n", "reason"]]
    for record in ordered:
        identity = [column(record) for column in columns.values()]
        lines += [[*identity, *measured] for measured in _measured(record)]
    return csv_text(lines)


def _measured(record: RunRecord) -> list[tuple[Value, ...]]:
    rows: list[tuple[str, str, Score]] = [
        (split, metric, score) for split, scores in (record.metrics or {}).items() for metric, score in scores.items()
    ]
    if not rows:
        return [(None, None, None, None, record.failure.message if record.failure else record.reason)]
    return [(split, metric, score.value, score.n, score.reason) for split, metric, score in sorted(rows, key=_by_name)]


def _by_name(item: tuple[str, str, Score]) -> tuple[str, str]:
    return item[:2]


def _cell_values(cell: Cell, interval: Interval | None) -> tuple[Value, ...]:
    if cell.mean is None:
        return None, None, None, None, None
    return cell.mean, cell.std, *_bounds(interval), " ".join(map(str, cell.seeds))


def _bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (_rounded(interval.low), _rounded(interval.high))


def _rounded(value: float) -> float:
    return round(value, DECIMALS)  # resamples are sums whose last digits depend on the machine


def csv_text(lines: Iterable[Sequence[Value]]) -> str:
    """Return lines as comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
