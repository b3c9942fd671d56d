"""The page as one text, whose bytes depend on the records and on the versions of the libraries in it."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from lorta.analysis.load import Source
from lorta.analysis.questions import Answered, answer_questions, stated
from lorta.analysis.significance import Analysis, analyse
from lorta.analysis.summary import Table, summarise
from lorta.records.record import RunRecord
from lorta.reporting.captions import caption, title
from lorta.reporting.diagnostic_tables import check_grid, check_notes
from lorta.reporting.html import plots
from lorta.reporting.html.lead import Lead, lead
from lorta.reporting.html.records import curves, pack, share
from lorta.reporting.html.repeats import drift_sentences
from lorta.reporting.html.still import still
from lorta.reporting.html.tables import (
    PageTable,
    check_table,
    failure_table,
    gain_table,
    run_header,
    run_rows,
    score_table,
    size_table,
    variance_table,
    verdict_table,
)
from lorta.reporting.plots.panels import Panel, rate_panels, training_panels
from lorta.reporting.sizes import NOTE
from lorta.reporting.tables import interval_notes
from lorta.system.terminal import counted

HERE = Path(__file__).parent
PACKAGES = ("torch", "transformers", "peft")  # whose versions are said first


class Plot(NamedTuple):
    """One plot's place among the packed ones, and what it shows in words."""

    number: int
    title: str
    axes: str
    summary: str


class PlotGroup(NamedTuple):
    """Plots of one kind; the first `open` of them are shown at once."""

    title: str
    plots: tuple[Plot, ...]
    open: int


class Section(NamedTuple):
    """One table of comparable runs, with all that is made of it."""

    key: str
    title: str
    lead: Lead  # the first screen
    verdicts: PageTable | None
    gains: PageTable | None
    scores: PageTable
    notes: tuple[str, ...]
    plots: tuple[PlotGroup, ...]
    sizes: PageTable
    checks: PageTable | None


def make_page(name: str, source: Source, reference: Mapping[str, RunRecord], title: str | None = None) -> str:
    """Return the page. `reference` are other records of the same runs, for drift.

    Tables with questions come first, tables of a single run last.

    Raises ValueError for records that must not share a table.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    figures: list[dict[str, Any]] = []
    tables = sorted(summarise(source.records), key=lambda table: len(table.runs) == 1)
    answered = answer_questions(tables, stated(source.records), source.items)
    sections = [
        _section(number, table, analyse(table, source.items), of_table, source, figures)
        for number, (table, of_table) in enumerate(zip(tables, answered, strict=True), 1)
    ]
    sections.sort(key=lambda section: section.verdicts is None)
    loader = FileSystemLoader(HERE)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    panel = sections[0].lead.panel if sections else None
    table_library, plot_library, library_css = _libraries()
    css = f"{library_css}\n{(HERE / 'page.css').read_text(encoding='utf-8')}"
    javascript = (HERE / "page.js").read_text(encoding="utf-8")
    return page.get_template("page.html.jinja").render(
        title=title or f"Results of {name}",
        counts=_counts(source.records),
        sections=sections,
        still=panel and still(panel),
        failures=failure_table(source.records),
        variance=variance_table(source.records),
        run_header=run_header(),
        trials=sum(record.is_trial for record in source.records),
        provenance=[*_provenance(source.records), *drift_sentences(source.records, reference)],
        policy=content_policy(javascript, css),
        css=css,
        javascript=javascript,
        table_library=table_library,
        plot_library=plot_library,
        data=pack(
            {
                **share(source.records),
                "runs": run_rows(source.records),
                "plots": figures,
                "curves": curves(source.losses),
            }
        ),
    )


def content_policy(javascript: str, css: str) -> str:
    """Return what a browser may run and show: the page's own script and style by their hash, nothing from a network.

    The script loads the packed libraries as blobs. plotly adds style elements, an empty one among them, and sets
    attributes of style, which run no code.
    """
    styles = " ".join(map(_source, (css, "", *plots.library_styles())))
    return (
        f"default-src 'none'; script-src {_source(javascript)} blob:; style-src {styles}; "
        "style-src-attr 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _libraries() -> tuple[str, str, str]:
    """Return the sources of DataTables and of plotly.js, each packed, and the former's style sheet."""
    from itables.options import dt_bundle

    tables = Path(dt_bundle)
    style = tables.with_suffix(".css").read_text(encoding="utf-8")
    return pack(tables.read_text(encoding="utf-8")), pack(plots.library()), style


def _section(
    number: int,
    table: Table,
    analysis: Analysis,
    answered: Sequence[Answered],
    source: Source,
    figures: list[dict[str, Any]],
) -> Section:
    group = partial(_group, figures)
    first = lead(table, analysis, answered, figures)
    kinds: Iterable[tuple[str, Callable[[], list[Panel]], int]] = (
        ("Score over learning rate", lambda: rate_panels(table), 2),
        ("Training loss", lambda: training_panels(table, source.losses), 1),
    )
    groups = tuple(group(name, panels, shown) for name, make, shown in kinds if (panels := make()))
    notes = (
        *caption(table),
        *(interval_notes(table, analysis) if analysis.intervals else ()),
        NOTE,
        *(check_notes(table) if check_grid(table) else ()),
    )
    scores, sizes = score_table(f"scores-{number}", table, analysis), size_table(f"sizes-{number}", table)
    checks = check_table(f"checks-{number}", table)
    verdicts = verdict_table(f"questions-{number}", table, answered)
    gained = gain_table(f"gains-{number}", table, source.items)
    return Section(f"table-{number}", title(table), first, verdicts, gained, scores, notes, groups, sizes, checks)


def _group(figures: list[dict[str, Any]], name: str, panels: Sequence[Panel], shown: int) -> PlotGroup:
    start = len(figures)
    figures += [plots.figure(panel) for panel in panels]
    points = [
        Plot(start + place, panel.title, plots.axes(panel), plots.summary(panel)) for place, panel in enumerate(panels)
    ]
    return PlotGroup(name, tuple(points), shown)


def _counts(records: Sequence[RunRecord]) -> str:
    states = sorted(Counter(record.status for record in records).items())
    return f"{counted(len(records), 'run')}: {', '.join(f'{count:,} {state}' for state, count in states)}."


def _provenance(records: Sequence[RunRecord]) -> list[str]:
    """Return one sentence for each kind of origin: code, packages, machines, and when."""
    code = [record.code for record in records if record.code]
    dirty = sum(bool(machine.git_dirty) for machine in code)
    environments = [record.environment for record in records if record.environment]
    versions = [
        f"{name} {', '.join(sorted({machine.packages[name] for machine in environments if name in machine.packages}))}"
        for name in PACKAGES
        if any(name in machine.packages for machine in environments)
    ]
    machines = {
        f"{machine.gpu_name or machine.cpu}, {machine.cores} cores"
        for record in records
        if (machine := record.hardware)
    }
    days = sorted({record.created_at[:10] for record in records})
    said = {
        "Code": ", ".join(
            sorted({f"lorta {machine.package_version} at {(machine.git_sha or '?')[:12]}" for machine in code})
        ),
        "Uncommitted changes": f"{dirty:,} runs" if dirty else "none" if code else "",
        "Packages": "; ".join([f"Python {', '.join(sorted({machine.python for machine in environments}))}", *versions])
        if environments
        else "",
        "Machines": "; ".join(sorted(machines)),
        "Started": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
    }
    return [f"{name}: {text}." for name, text in said.items() if text]
