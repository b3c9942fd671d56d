"""Forgetting and merging in reports: a table of methods, and columns of the long CSV; only where records have them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lorta.analysis.statistics import mean
from lorta.analysis.summary import Row, Table
from lorta.records.record import RunRecord
from lorta.reporting.markup import DASH, TextTable

HEADER = ("adapter", "loss before", "loss after", "increase", "logit difference after merging")
DECIMALS = 4  # of losses
NOTES = (
    "Forgetting: loss in nats per token on held-out text similar to the pre-training data, before and after training; "
    "mean over the runs of a row, and the range of the increase. A sequence classifier has no LM head, so the "
    "pretrained one is put back for this measurement.",
    "Merging: largest absolute difference of the logits before and after merging on a fixed batch, divided by the "
    "largest logit; maximum over the runs.",
)


def check_grid(table: Table) -> TextTable | None:
    """Return a row for each method, with footnotes for missing values; None where no run has either measurement."""
    if not any(run.record.forgetting or run.record.merging for run in table.runs):
        return None
    body: list[tuple[str, ...]] = []
    marks: dict[tuple[int, int], int] = {}
    footnotes: dict[str, int] = {}
    for row in table.rows:
        losses, difference = _losses(row), _merging(row)
        for columns, texts, name in ((range(1, 4), losses, "forgetting"), (range(4, 5), difference, "merging")):
            for column in columns if texts is None else ():
                note = f"{row.label}, {name}: {_why(row, name)}"
                marks[len(body), column] = footnotes.setdefault(note, len(footnotes) + 1)
        body.append((row.label, *(losses or (DASH,) * 3), *(difference or (DASH,))))
    return TextTable(HEADER, tuple(body), marks, tuple(footnotes))


def check_notes(table: Table) -> list[str]:
    """Return what the columns mean and which text the losses are on; a warning where it is not one text."""
    measured = [run.record.forgetting for run in table.runs if run.record.forgetting]
    texts = sorted({f"{one.text} ({one.objective}, {one.tokens:,} tokens)" for one in measured})
    several = len({one.text_sha256 for one in measured}) > 1
    notes = [f"Text: {'; '.join(texts)}."] if texts else []
    return [*NOTES, *notes, *(["The runs used different texts: compare only the increases."] if several else [])]


def check_columns(records: Sequence[RunRecord]) -> Mapping[str, Callable[[RunRecord], str | float | None]]:
    """Return column -> value for a table of runs; none where no record has such a measurement."""
    columns: dict[str, Callable[[RunRecord], str | float | None]] = {}
    if any(record.forgetting for record in records):
        columns["base_loss_before"] = lambda record: record.forgetting and record.forgetting.loss_before
        columns["base_loss_after"] = lambda record: record.forgetting and record.forgetting.loss_after
        columns["base_text_sha256"] = lambda record: record.forgetting and record.forgetting.text_sha256
    if any(record.merging for record in records):
        columns["merging_difference"] = lambda record: record.merging and record.merging.largest_difference
    return columns


def _losses(row: Row) -> tuple[str, str, str] | None:
    ours = [run.record.forgetting for run in row.runs if run.record.forgetting]
    pairs = [
        (one.loss_before, one.loss_after) for one in ours if one.loss_before is not None and one.loss_after is not None
    ]
    if not pairs:
        return None
    before, after = (mean(values) for values in zip(*pairs, strict=True))
    rises = [last - first for first, last in pairs]
    spread = f" ({min(rises):+.{DECIMALS}f} to {max(rises):+.{DECIMALS}f})" if len(rises) > 1 else ""
    return f"{before:.{DECIMALS}f}", f"{after:.{DECIMALS}f}", f"{mean(rises):+.{DECIMALS}f}{spread}"


def _merging(row: Row) -> tuple[str] | None:
    measured = [run.record.merging for run in row.runs if run.record.merging]
    values = [one.largest_difference for one in measured if one.largest_difference is not None]
    return (f"{max(values):.1e}",) if values else None


def _why(row: Row, name: str) -> str:
    return "; ".join(_reasons((run.record for run in row.runs), name)) or "not measured"


def _reasons(records: Iterable[RunRecord], name: str) -> list[str]:
    """Return why a section, or a loss or difference in it, is null: each reason once."""
    texts = [why for record in records for key, why in record.reasons.items() if key.partition(".")[0] == name]
    return sorted(set(texts))
