"""The command `lorta table`, which is `python scripts/make_tables.py`: reports of runs, and papers beside our runs.

    lorta table [--runs runs | --records FILE ...] [--name NAME]     the report of finished runs
    lorta table paper=lorta [table=glue_base] [--runs runs | --records FILE ...]     published | measured | verdict

Without --runs or --records, a report is of `runs`, and a paper's table is of all committed records. A report is written
to RESULTS/reports/NAME.*, a paper's tables to RESULTS/reports/paper_PAPER[.TABLE].*; both are printed as Markdown.
RESULTS is `results/local`, which git ignores; of a report of --records it is `results`, whose reports are committed.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from lorta.analysis.load import read_source
from lorta.analysis.validation import refuse_untrusted
from lorta.records.record import RunRecord
from lorta.system.source_files import other_code, other_code_sentences

WORDS = ("paper", "table")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the words and options of the command."""
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="paper=NAME and table=NAME, of results/published")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--runs", type=Path, help="folder of all runs (default of a report: runs)")
    source.add_argument(
        "--records", type=Path, nargs="+", help="exported by `lorta collect` (default of a paper: all committed)"
    )
    parser.add_argument(
        "--uncommitted", action="store_true", help="take runs of uncommitted code too; the table says which"
    )
    parser.add_argument("--name", help="file name of the report, without an ending (default: that of its source)")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder to write to (default: results/local; of a report of --records: results)",
    )
    parser.add_argument("--formats", default="png", help="of the figures: png,pdf,svg (default: %(default)s)")
    parser.add_argument(
        "--width", default="screen", help="of the figures: screen, page (6.75 inches) or column (3.25 inches)"
    )
    parser.add_argument("--tasks", help="of the report: rte,glue/cola,math_* (default: all)")
    parser.add_argument(
        "--columns", help="of the LaTeX table: parameters,head,other,scores,average,seconds (default: all)"
    )


def run(options: argparse.Namespace) -> None:
    """Write and print what the options ask for. Raises ValueError with a sentence for bad input."""
    words = _words(options.words)
    committed = (options.results or Path("results")) / "records"
    if options.results is None:
        options.results = Path("results/local" if options.records is None or "paper" in words else "results")
    if options.name is not None and Path(options.name).name != options.name:
        raise ValueError(f"--name must be a file name without folders, got {options.name!r}.")
    if "paper" in words:
        _papers(options, words, committed)
    elif "table" in words:
        raise ValueError(f"table={words['table']} is of which paper? add paper=NAME.")
    else:
        _report(options)


def _words(words: list[str]) -> dict[str, str]:
    words_of: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in WORDS or not value or key in words_of:
            near = difflib.get_close_matches(key, WORDS, n=1)
            hint = f"; did you mean {near[0]}={value or 'NAME'}?" if near and key not in WORDS else ""
            raise ValueError(f"{word}: give paper=NAME and table=NAME, once each{hint}.")
        words_of[key] = value
    return words_of


def _report(options: argparse.Namespace) -> None:
    from lorta.reporting.report import write_full_report

    formats, width, shown = _formats(options.formats), _width(options.width), _columns(options.columns)
    if options.records is None:
        options.runs = options.runs or Path("runs")
    source = read_source(options.runs, options.records, True, options.uncommitted)
    source = source._replace(records=_of_tasks(source.records, options.tasks))
    name = options.name or (options.records[0] if options.records else options.runs).name.split(".")[0]
    replaces = _stands(options.results, name)
    print(write_full_report(source, name, options.results, formats, width, shown))
    _say_where(options.results, name, replaces)
    if options.records is None:
        say_other_code(source.records)


def _of_tasks(records: list[RunRecord], text: str | None) -> list[RunRecord]:
    """Return the records of the tasks that some patterns name, in full or without the family. Raises ValueError."""
    if text is None:
        return records
    tasks = {record.run_id: record.task.name if record.task else record.choices.get("task", "") for record in records}
    kept: set[str] = set()
    for pattern in text.split(","):
        named = {name for name in tasks.values() if fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)}
        if not named:
            raise ValueError(f"--tasks: no record is of {pattern}; there are {', '.join(sorted(set(tasks.values())))}.")
        kept |= named
    return [record for record in records if tasks[record.run_id] in kept]


def _columns(text: str | None) -> Sequence[str]:
    from lorta.reporting.latex import COLUMNS

    words = COLUMNS if text is None else tuple(text.split(","))
    if unknown := [word for word in words if word not in COLUMNS]:
        raise ValueError(f"--columns takes {', '.join(COLUMNS)}, with commas between, got {', '.join(unknown)}.")
    return words


def _formats(text: str) -> list[str]:
    from lorta.reporting.plots.figures import FORMATS

    formats = text.split(",")
    if unknown := [word for word in formats if word not in FORMATS]:
        raise ValueError(f"--formats takes {', '.join(FORMATS)}, with commas between, got {', '.join(unknown)}.")
    return formats


def _width(text: str) -> str:
    from lorta.reporting.plots.figures import WIDTHS

    if text not in WIDTHS:
        raise ValueError(f"--width takes one of {', '.join(WIDTHS)}, got {text}.")
    return text


def _papers(options: argparse.Namespace, words: dict[str, str], committed: Path) -> None:
    from lorta.analysis.published import load
    from lorta.analysis.verdicts import Evidence
    from lorta.reporting.paper_tables import judge_table, write_paper

    paper = load(words["paper"])
    if options.runs is None and options.records is None:
        options.records = sorted(committed.glob("*.jsonl*"))
    source = read_source(options.runs, options.records, uncommitted=options.uncommitted)
    if options.records is None:
        own = [record for record in source.records if record.imported is None]  # no other is beside published numbers
        refuse_untrusted(own, str(options.runs), options.uncommitted)
    names = [words["table"]] if "table" in words else list(paper.tables)
    evidence = Evidence.of(source.records, source.items)
    tables = [judge_table(paper, name, evidence) for name in names]
    of_one = f".{words['table']}" if "table" in words else ""
    name = options.name or f"paper_{paper.paper}{of_one}"
    replaces = _stands(options.results, name)
    print(write_paper(tables, options.results, name))
    _say_where(options.results, name, replaces)
    if options.records is None:  # committed records are of the commits that they name, and stay so
        say_other_code(source.records)


def _stands(results: Path, name: str) -> bool:
    """Return whether a report of that name is there."""
    return (results / "reports" / f"{name}.md").exists()


def _say_where(results: Path, name: str, replaces: bool) -> None:
    """Say which files were written, beside the table itself, and whether others stood there."""
    places = {kind: sorted(file.name for file in (results / kind).glob(f"{name}.*")) for kind in ("reports", "figures")}
    written = "; ".join(f"{results / kind}: {', '.join(files)}" for kind, files in places.items() if files)
    print(f"written: {written}{' (in place of the ones of before)' if replaces else ''}", file=sys.stderr)


def say_other_code(records: Iterable[RunRecord]) -> None:
    """Say which finished runs were done by other code; beside the table, which is of its records alone."""
    done = [record for record in records if record.status == "success" and record.imported is None]
    phrases = [other_code(record.code and asdict(record.code), record.config) for record in done]
    for sentence in other_code_sentences(phrases):
        print(sentence, file=sys.stderr)
