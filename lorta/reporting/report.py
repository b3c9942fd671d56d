"""From records, and nothing else, to reports/NAME.{md,csv,runs.csv,comparisons.csv,tex,notes.tex} and figures/NAME.png.

A study that asks questions has reports/NAME.questions.csv and figures/NAME.study.png.
More plots, if they are asked for, are figures/NAME.{costs,ranks,rates,training}.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from lorta.analysis.item_scores import ItemScores
from lorta.analysis.load import Source
from lorta.analysis.questions import Answered, answer_questions, stated
from lorta.analysis.significance import Analysis, analyse, columns
from lorta.analysis.summary import Table, summarise
from lorta.records.record import RunRecord
from lorta.records.store import write_atomically
from lorta.reporting.captions import title
from lorta.reporting.csv_tables import to_comparison_csv, to_csv, to_long_csv
from lorta.reporting.gains import gain_section
from lorta.reporting.latex import COLUMNS, to_latex, to_latex_notes
from lorta.reporting.plots.figures import Band, plot
from lorta.reporting.plots.panels import Panel, cost_panels, rank_panels, rate_panels, score_panels, training_panels
from lorta.reporting.plots.study import study_panels
from lorta.reporting.plots.study_figure import plot_study
from lorta.reporting.tables import to_markdown
from lorta.reporting.terminal_table import show
from lorta.reporting.variance import variance_section
from lorta.reporting.verdicts import to_verdict_csv, verdict_sentences

Pair = tuple[Table, Analysis]


def write_report(
    records: Iterable[RunRecord], name: str, results: Path, figure: bool = True, items: ItemScores | None = None
) -> str:
    """Write every form of the report below `results` and return the Markdown text.

    `items` are scores of single rows by run; intervals of runs without them are over seeds alone. Drawing takes most of
    the time, so a caller whose records did not change may leave the figure out. Raises ValueError for records that must
    not share a table.
    """
    pairs, answered, markdown = _write_tables(list(records), name, results, items or {})
    if figure:
        _plot_scores(pairs, answered, name, results, items or {})
    return markdown


def write_and_show(
    records: Sequence[RunRecord], name: str, results: Path, figure: bool, items: ItemScores, console: Console
) -> None:
    """Write the report, print what fits a terminal, and say where the rest is. Raises as `write_report` does."""
    replaces = " (in place of the ones of before)" if (results / "reports" / f"{name}.md").exists() else ""
    pairs, answered, _ = _write_tables(records, name, results, items)
    if figure:
        _plot_scores(pairs, answered, name, results, items)
    for pair in pairs:
        show(*pair, console)
    if not pairs:
        console.print("No run has finished yet.", markup=False)
    for sentence in verdict_sentences([table for table, _ in pairs], answered):
        console.print(sentence, markup=False, soft_wrap=True)
    drawn = f", {_stem(results, name)}.png" if _stem(results, name).with_name(f"{name}.png").exists() else ""
    console.print(f"written: {results / 'reports' / name}.{{md,csv,tex}}{drawn}{replaces}", markup=False)


def write_full_report(
    source: Source, name: str, results: Path, formats: Sequence[str], width: str, shown: Sequence[str] = COLUMNS
) -> str:
    """Write the report and every kind of plot that has something to show, for a width of figures.WIDTHS.

    `shown` are the columns of the LaTeX table, of latex.COLUMNS.
    """
    pairs, answered, markdown = _write_tables(source.records, name, results, source.items, shown)
    kinds = {
        "": [score_panels(*pair) for pair in pairs],
        ".costs": [cost_panels(*pair, columns(pair[0])[-1:]) for pair in pairs],
        ".ranks": [rank_panels(*pair) for pair in pairs],
        ".rates": [rate_panels(table) for table, _ in pairs],
        ".training": [training_panels(table, source.losses) for table, _ in pairs],
    }
    for kind, panels in kinds.items():
        if bands := _bands(pairs, panels):
            plot(bands, _stem(results, name + kind), formats, width)
    _plot_study(pairs, answered, _stem(results, f"{name}.study"), source.items, formats, width)
    return markdown


def _write_tables(
    records: Sequence[RunRecord], name: str, results: Path, items: ItemScores, shown: Sequence[str] = COLUMNS
) -> tuple[list[Pair], Sequence[Sequence[Answered]], str]:
    """Write the tables; return them with their analyses, the answers to each one's questions, and the Markdown text."""
    pairs = [(table, analyse(table, items)) for table in summarise(records)]
    tables, analyses = [table for table, _ in pairs], [analysis for _, analysis in pairs]
    questions = stated(records)
    answered = answer_questions(tables, questions, items)
    parts = (
        to_markdown(tables, records, analyses, answered),
        gain_section(tables, items),
        variance_section(records),
    )
    markdown = "\n".join(part for part in parts if part)
    texts = {
        "md": markdown,
        "csv": to_csv(tables, analyses),
        "runs.csv": to_long_csv(records),
        "comparisons.csv": to_comparison_csv(tables, analyses),
        "tex": to_latex(tables, analyses, name, shown),
        "notes.tex": to_latex_notes(tables, analyses, name, shown),
    }
    if questions:
        texts["questions.csv"] = to_verdict_csv(tables, answered)
    for ending, text in texts.items():
        write_atomically(results / "reports" / f"{name}.{ending}", text)
    return pairs, answered, markdown


def _plot_scores(
    pairs: Sequence[Pair], answered: Sequence[Sequence[Answered]], name: str, results: Path, items: ItemScores
) -> None:
    if bands := _bands(pairs, [score_panels(*pair) for pair in pairs]):
        plot(bands, _stem(results, name))
        _plot_study(pairs, answered, _stem(results, f"{name}.study"), items)


def _plot_study(
    pairs: Sequence[Pair],
    answered: Sequence[Sequence[Answered]],
    stem: Path,
    items: ItemScores,
    formats: Sequence[str] = ("png",),
    width: str = "page",
) -> None:
    """Draw the answers to a study's questions, nothing where it has none."""
    of_tables = [study_panels(table, of, items) for (table, _), of in zip(pairs, answered, strict=True)]
    if panels := [panel for of_table in of_tables for panel in of_table]:
        plot_study(panels, stem, formats, width)


def _bands(pairs: Sequence[Pair], panels: Sequence[Sequence[Panel]]) -> list[Band]:
    known = [all(row.sizes_known for row in table.rows) for table, _ in pairs]  # plots are over the number of weights
    given = zip(pairs, panels, known, strict=True)
    return [(title(table), panel) for (table, _), panel, sized in given if panel and sized]


def _stem(results: Path, name: str) -> Path:
    return results / "figures" / name
