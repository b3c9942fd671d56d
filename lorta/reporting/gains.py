"""What training gained against the untouched model, as a table and notes."""

from collections.abc import Iterable, Sequence

from lorta.analysis.equivalence import Verdict
from lorta.analysis.gains import Gain, gains
from lorta.analysis.item_scores import ItemScores
from lorta.analysis.summary import Table
from lorta.reporting.captions import title
from lorta.reporting.markup import DASH, TextTable, markdown_table, markdown_text
from lorta.reporting.ranges import difference_within, metric_ends
from lorta.reporting.verdicts import Names

HEADER = ("method and task", "score", "untouched model", "gain", "interval", "verdict")
NOTE = (
    "Gain: how much better the trained model is than the backbone before an adapter was attached, on the same rows; "
    "of a loss, how much lower. Intervals contain the choice of seeds and of scored rows. Over all lines of a table, "
    "no verdict is false with a probability of 95 %. Intervals end where the metric does."
)
ONE_SEED = "with a single seed, a gain has no interval"


def gain_grid(table: Table, items: ItemScores) -> TextTable | None:
    """Return a line for each method and task, None where no run scored the untouched model."""
    known = gains(table, items)
    return TextTable(HEADER, tuple(_line(table, gain) for gain in known)) if known else None


def gain_notes(known: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what a reader must know of the lines."""
    single = any(line[-1] == DASH for line in known)
    return (NOTE, f"{DASH}: {ONE_SEED}.") if single else (NOTE,)


def gain_section(tables: Sequence[Table], items: ItemScores) -> str:
    """Return a Markdown section, empty where no run scored the untouched model."""
    grids = [(table, grid) for table in tables if (grid := gain_grid(table, items)) is not None]
    if not grids:
        return ""
    lines = ["## Against the untouched model", ""]
    for table, grid in grids:
        lines += [f"### {markdown_text(title(table))}", ""] if len(grids) > 1 else []
        lines += [*markdown_table(grid), ""]
    notes = gain_notes(line for _, grid in grids for line in grid.body)
    return "\n".join([*lines, *(f"- {markdown_text(note)}" for note in notes), ""])


def gain_sentence(table: Table, items: ItemScores, names: Names) -> str:
    """Return the gains on a table's only task with their intervals; empty for several tasks or without a gain."""
    known = [_line(table, gain) for gain in gains(table, items)] if len(table.tasks) == 1 else []
    said = [f"{names.row(name)} {gain} [{interval.replace(' to ', ', ')}]" for name, _, _, gain, interval, _ in known]
    return f"Gains over the untouched model: {', '.join(said)}." if said else ""


def _line(table: Table, gain: Gain) -> tuple[str, str, str, str, str, str]:
    digits = 1 if table.higher_is_better else 4
    change = gain.score - gain.untouched if table.higher_is_better else gain.untouched - gain.score
    name = gain.row.label if len(table.tasks) == 1 else f"{gain.row.label}, {table.short(gain.task)}"
    first = name, f"{gain.score:.{digits}f}", f"{gain.untouched:.{digits}f}", f"{change:+.{digits}f}"
    if gain.answer is None:
        return *first, DASH, DASH
    low, high = difference_within(gain.answer.interval, table, gain.task, gain.answer.alike)
    if (ends := metric_ends(table, gain.task)) is not None:  # no score can gain more than is left above it
        low, high = max(low, ends[0] - gain.untouched), min(high, ends[1] - gain.untouched)
    verdict = "undecided" if gain.answer.verdict is Verdict.UNDECIDED else f"{gain.answer.verdict} than untouched"
    return *first, f"{low:+.{digits}f} to {high:+.{digits}f}", verdict
