"""The table that a sweep ends with: for a terminal of 80 columns, the best method first. The whole is in its files."""

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from lorta.analysis.significance import AVERAGE, Analysis, columns
from lorta.analysis.summary import Table
from lorta.reporting.best_first import best_first, score_of
from lorta.reporting.captions import title
from lorta.reporting.markup import DASH
from lorta.reporting.ranges import within_range
from lorta.reporting.tables import count_text, interval_text

MOST_TASKS = 4  # beside their average: more do not fit
TIED = "*"
SHORT = {"matthews_correlation": "Matthews"}  # metrics whose names would take a quarter of the screen


def show(table: Table, analysis: Analysis, console: Console) -> None:
    """Print a table of comparable runs with intervals and ties, and what these mean."""
    ranked = columns(table)[-1]
    shown = [*(table.tasks if len(table.tasks) <= MOST_TASKS else ()), AVERAGE] if ranked == AVERAGE else [ranked]
    grid = Grid(title=Text(title(table)), title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("method", overflow="fold")
    grid.add_column("adapter\nparameters", justify="right", overflow="fold")
    for column in shown:
        grid.add_column(_heading(table, column), justify="right", overflow="fold")
    grid.add_column("train s", justify="right", overflow="fold")
    for number in best_first(table):
        row = table.rows[number]
        scores = [_score(table, analysis, number, column, column == ranked) for column in shown]
        time = DASH if row.train_s.mean is None else f"{row.train_s.mean:.1f}"
        size = count_text(row.adapter_parameters) if row.sizes_known else DASH
        grid.add_row(Text(row.label), Text(size), *scores, Text(time))
    console.print(grid, soft_wrap=False)
    for note in _notes(table, analysis, ranked):
        console.print(Text(note), soft_wrap=False)


def _heading(table: Table, column: str) -> Text:
    """Return a task's name over its metric, which the average has none of."""
    metric = table.metrics.get(column, "")
    return Text(column if column == AVERAGE else f"{table.short(column)}\n{SHORT.get(metric, metric)}")


def _score(table: Table, analysis: Analysis, number: int, column: str, with_interval: bool) -> Text:
    """Return a score, with its interval where asked for; the best of a column is bold, a tie with it has a mark."""
    value, interval = score_of(table.rows[number], column), analysis.intervals.get((number, column))
    if value is None:
        return Text(DASH)
    text = f"{value:.{table.decimals}f}"
    if with_interval and interval is not None:
        text = interval_text(within_range(interval, table, column), table.decimals)
    is_best = any((pair.best, pair.column) == (number, column) for pair in analysis.comparisons)
    mark = TIED if (number, column) in analysis.ties and not is_best else " " if analysis.ties else ""
    return Text(f"{text}{mark}", style="bold" if is_best else "")


def _notes(table: Table, analysis: Analysis, ranked: str) -> list[str]:
    seeds = sorted({run.record.seed for run in table.runs})
    unit = "x 100" if table.higher_is_better else "(lower is better)"
    mean = f"mean over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} only"
    notes = [f"Scores {unit}, {mean}; the best {'average' if ranked == AVERAGE else 'score'} first."]
    if any(column == ranked for _, column in analysis.intervals):
        notes.append("[low, high]: 95 % confidence interval over seeds and scored rows, as far as they are known.")
    if analysis.ties:
        notes.append(f"{TIED} not significantly different from the best.")
    elif len(table.rows) > 1:
        notes.append("Nothing tells whether the differences are more than chance: add seeds (seed=0,1,2).")
    return notes
