"""What plots show, before anything is drawn: panels of curves, for files (figures.py) and for the page (page/plots.py).

Scores are in the table's unit; intervals are those of lorta.analysis.significance, cut where the metric ends. There is
none where nothing is known of the spread. Curves are by family, size and rank. Pure functions; no plotting library.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lorta.analysis.losses import Losses
from lorta.analysis.significance import AVERAGE, Analysis, columns
from lorta.analysis.statistics import mean
from lorta.analysis.summary import Row, Run, Table, group
from lorta.reporting.ranges import Ends, metric_ends, within_range
from lorta.reporting.sizes import training_peak
from lorta.reporting.styles import family_place, printed_name, printed_task
from lorta.reporting.tables import interval_text

PARAMETERS, RANK = "adapter parameters", "rank"
CONFIDENCE = "95 % confidence intervals over seeds and, where their scores are known, rows, cut where the metric ends"
SEED_RANGE = "from the lowest to the highest seed"
MEBIBYTE, KIBIBYTE = 2**20, 2**10


class Point(NamedTuple):
    """One row of a table in a panel; `low` and `high` bound the score, None without an interval."""

    x: float
    y: float
    low: float | None
    high: float | None
    text: str  # what the row is and has, in words


@dataclass(frozen=True)
class Curve:
    """Points of one method, by `x`; `across` is a single score with no `x` on this axis, drawn from side to side."""

    method: str
    name: str
    points: tuple[Point, ...]
    across: bool = False
    joined: bool = True  # by a line
    number: int = 0  # which of its method's curves it is; the fill of its markers tells


@dataclass(frozen=True)
class Panel:
    """One plot. `front` are the points that no other beats in both, by `x`: more score for less of it.

    `ends` are the least and the most that the score can be, None where that is not known; `bars` says what the points'
    intervals are. Points of nearly equal x are drawn side by side where `x` is a `size` that methods share.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = True
    front: tuple[Point, ...] = ()
    ends: Ends | None = None
    bars: str = ""
    size: bool = False

    @property
    def x_ends(self) -> tuple[float, float]:
        """The smallest and the largest x."""
        xs = [point.x for curve in self.curves if not curve.across for point in curve.points]
        return (min(xs), max(xs)) if xs else (1.0, 10.0)

    @property
    def y_range(self) -> tuple[float, float] | None:
        """What to show of the scores: all of them, and their intervals as far as half the scores' range beyond.

        Never what is outside of the metric's range, but for room to see a point that is on its end.
        """
        points = [point for curve in self.curves for point in curve.points]
        if not points:
            return None
        low, high = min(point.y for point in points), max(point.y for point in points)
        reach, margin = (high - low) / 2, (high - low) / 20
        if not reach:
            return None
        lows = [low, *(point.low for point in points if point.low is not None)]
        highs = [high, *(point.high for point in points if point.high is not None)]
        bottom, top = max(min(lows), low - reach) - margin, min(max(highs), high + reach) + margin
        if self.ends is not None:
            room = (top - bottom) / 50
            bottom, top = max(bottom, self.ends[0] - room), min(top, self.ends[1] + room)
        return bottom, top


Costs = Callable[[Row], float | None]


def score_panels(table: Table, analysis: Analysis) -> list[Panel]:
    """Return score over adapter parameters: averaged over tasks, if a method has all of several, and by task."""
    panels = [_over(table, analysis, name, PARAMETERS, _parameters) for name in average_and_tasks(table)]
    return _numbered([panel for panel in panels if panel.curves])


def average_and_tasks(table: Table) -> list[str]:
    """Return a table's columns in the order of panels: the average, if there are several tasks, then each task."""
    return [*columns(table)[len(table.tasks) :], *table.tasks]


def cost_panels(table: Table, analysis: Analysis, names: Sequence[str]) -> list[Panel]:
    """Return the scores of some columns over each cost that is known: time, memory, bytes."""
    costs: dict[str, Costs] = {
        "training time, s": lambda row: row.train_s.mean,
        "training peak memory, MiB": _largest(_peak_mebibytes),
        "stored adapter, KiB": _largest(_adapter_kibibytes),
    }
    panels = [_over(table, analysis, name, label, cost) for label, cost in costs.items() for name in names]
    return _numbered([panel for panel in panels if any(not curve.across for curve in panel.curves)])


def rank_panels(table: Table, analysis: Analysis) -> list[Panel]:
    """Return score over rank for methods that were run at several."""
    several = {name for name, rows in group(table.rows, _adapter).items() if len({row.rank for row in rows}) > 1}
    names = average_and_tasks(table) if several else []
    panels = [
        _over(table, analysis, name, RANK, lambda row: row.rank, [row.adapter in several for row in table.rows])
        for name in names
    ]
    return _numbered([panel for panel in panels if panel.curves])


def rate_panels(table: Table) -> list[Panel]:
    """Return score over learning rate, by task, for methods that were trained at several and else alike."""
    panels: list[Panel] = []
    for task in table.tasks:
        curves: list[Curve] = []
        for (name, label), rows in group(_by_family(table), _without_rate).items():
            runs = [run for row in rows for run in row.runs if run.task.name == task and run.score.value is not None]
            rates = group(runs, lambda run: run.adapter.learning_rate)
            if len(rates) > 1 and None not in rates:
                points = [_rate_point(table, label, rate or 0.0, of_rate) for rate, of_rate in rates.items()]
                curves.append(Curve(name, label, tuple(sorted(points))))
        if curves:
            title, ends = _title(table, task), metric_ends(table, task)
            panels.append(Panel(title, "learning rate", _unit(table), tuple(curves), ends=ends, bars=SEED_RANGE))
    return _numbered(panels)


def _without_rate(row: Row) -> tuple[str, str]:
    """Return the adapter, and the row's label without its learning rate."""
    parts = row.variant.split(", ")
    rest = ", ".join(part for part in parts if part.partition("=")[0].rpartition(".")[2] != "learning_rate")
    return row.adapter, printed_name(row.adapter, row.rank, rest)


def _rate_point(table: Table, label: str, rate: float, runs: Sequence[Run]) -> Point:
    values = [(run.score.value or 0.0) * table.scale for run in runs]
    middle = mean(values)
    ends = (min(values), max(values)) if len(values) > 1 else (None, None)
    low, high = (f"{end:.{table.decimals}f}" for end in (min(values), max(values)))
    said = f", {low} to {high} over {len(values)} runs" if len(values) > 1 else ""
    return Point(rate, middle, *ends, f"{label}: {middle:.{table.decimals}f}{said}")


def training_panels(table: Table, losses: Losses) -> list[Panel]:
    """Return training loss over steps by task, averaged over a row's seeds that logged the same two steps or more."""
    panels: list[Panel] = []
    for task in table.tasks:
        curves: list[Curve] = []
        for row in _by_family(table):
            of_row = [losses[run.record.run_id] for run in row.runs if run.task.name == task and _known(run, losses)]
            if of_row and len({history.steps for history in of_row}) == 1 and len(of_row[0].steps) > 1:
                means = [mean(values) for values in zip(*(history.losses for history in of_row), strict=True)]
                points = [Point(step, loss, None, None, "") for step, loss in zip(of_row[0].steps, means, strict=True)]
                curves.append(Curve(row.adapter, _printed(row), tuple(points)))
        if curves:
            title = f"{printed_task(table.short(task))}: training loss"
            panels.append(Panel(title, "training step", "training loss", tuple(curves), log_x=False))
    return _numbered(panels)


def _numbered(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels with the curves of each method numbered, alike in all of them."""
    names: dict[str, dict[str, int]] = {}
    for curve in (curve for panel in panels for curve in panel.curves):
        of_method = names.setdefault(curve.method, {})
        of_method.setdefault(curve.name, len(of_method))
    return [
        replace(panel, curves=tuple(replace(curve, number=names[curve.method][curve.name]) for curve in panel.curves))
        for panel in panels
    ]


def _known(run: Run, losses: Losses) -> bool:
    return run.record.run_id in losses


def _over(table: Table, analysis: Analysis, column: str, label: str, cost: Costs, chosen: Sequence[bool] = ()) -> Panel:
    """Return the panel of one column over a cost of its rows; a cost of nothing is drawn across."""
    points_of: dict[tuple[str, str], list[Point]] = {}
    across: list[Curve] = []
    for number in _family_order(table):
        row = table.rows[number]
        cell = row.average if column == AVERAGE else row.cells[column]
        x = cost(row)
        if cell.mean is None or x is None or (chosen and not chosen[number]):
            continue
        interval = analysis.intervals.get((number, column))
        interval = interval and within_range(interval, table, column)
        ends = (None, None) if interval is None else (interval.low, interval.high)
        value = interval_text(interval, table.decimals) or f"{cell.mean:.{table.decimals}f}"
        point = Point(float(x), cell.mean, *ends, f"{_printed(row)}: {value}")
        if x:
            points_of.setdefault((row.adapter, row.variant), []).append(point)
        else:
            across.append(Curve(row.adapter, f"{_printed(row)}, 0 {label}", (point,), across=True))
    joined = label in (PARAMETERS, RANK)  # ranks need not be in the order of other costs
    curves = [
        Curve(method, printed_name(method, None, variant), tuple(sorted(points)), joined=joined)
        for (method, variant), points in points_of.items()
    ]
    front = () if label == RANK else _front([point for points in points_of.values() for point in points], table)
    ends = metric_ends(table, column)
    shown = (*curves, *across)
    return Panel(_title(table, column), label, _unit(table), shown, True, front, ends, CONFIDENCE, size=joined)


def _family_order(table: Table) -> list[int]:
    """Return the numbers of a table's rows by family, then by size and rank, a method together; rows are by size."""
    first: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        first.setdefault(row.adapter, number)
    names = [row.adapter for row in table.rows]
    return sorted(range(len(names)), key=lambda number: (family_place(names[number])[0], first[names[number]]))


def _by_family(table: Table) -> list[Row]:
    return [table.rows[number] for number in _family_order(table)]


def _printed(row: Row) -> str:
    return printed_name(row.adapter, row.rank, row.variant)


def _front(points: Iterable[Point], table: Table) -> tuple[Point, ...]:
    """Return the points with a better score than all that cost as much or less."""
    up = table.higher_is_better
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y if up else point.y)):
        if not front or (point.y > front[-1].y if up else point.y < front[-1].y):
            front.append(point)
    return tuple(front)


def _title(table: Table, column: str) -> str:
    return column if column == AVERAGE else printed_task(table.short(column), table.metrics[column])


def _unit(table: Table) -> str:
    return "score (metric x 100)" if table.higher_is_better else "score, lower is better"


def _adapter(row: Row) -> str:
    return row.adapter


def _parameters(row: Row) -> float:
    return row.adapter_parameters.high


def _largest(value: Callable[[Run], float | None]) -> Costs:
    def of_row(row: Row) -> float | None:
        return max((number for run in row.runs if (number := value(run)) is not None), default=None)

    return of_row


def _peak_mebibytes(run: Run) -> float | None:
    peak = training_peak(run.record.memory) if run.record.memory else None
    return None if peak is None else peak / MEBIBYTE


def _adapter_kibibytes(run: Run) -> float | None:
    size = run.record.storage and run.record.storage.adapter_bytes
    return None if size is None else size / KIBIBYTE
