"""From records, and nothing else, to reports/NAME.{md,csv,runs.csv,comparisons.csv,tex} and figures/NAME.png."""

from collections.abc import Iterable
from pathlib import Path

from lorta.harness.comparisons import analyse
from lorta.harness.csv_tables import to_comparison_csv, to_csv, to_long_csv
from lorta.harness.figures import plot
from lorta.harness.item_scores import ItemScores
from lorta.harness.record import RunRecord
from lorta.harness.rendering import to_latex, to_markdown
from lorta.harness.store import write_atomically
from lorta.harness.summary import summarise


def write_report(
    records: Iterable[RunRecord], name: str, results: Path, figure: bool = True, items: ItemScores | None = None
) -> str:
    """Write every form of the report below `results` and return the Markdown text.

    `items` are scores of single rows by run; intervals of runs without them are over seeds alone. Drawing takes most of
    the time, so a caller whose records did not change may leave the figure out. Raises ValueError for records that must
    not share a table.
    """
    found = list(records)
    tables = summarise(found)
    analyses = [analyse(table, items or {}) for table in tables]
    markdown = to_markdown(tables, found, analyses)
    texts = {
        "md": markdown,
        "csv": to_csv(tables, analyses),
        "runs.csv": to_long_csv(found),
        "comparisons.csv": to_comparison_csv(tables, analyses),
        "tex": to_latex(tables, analyses),
    }
    for ending, text in texts.items():
        write_atomically(results / "reports" / f"{name}.{ending}", text)
    if figure and tables:
        plot(tables, results / "figures" / f"{name}.png")
    return markdown
