"""The command `lorta report`: one HTML file with tables, plots and records, which needs no network."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lorta.analysis.load import Source, read_source
from lorta.cli.filters import declare_filters, kept
from lorta.cli.table import say_other_code
from lorta.records.record import RunRecord
from lorta.records.store import read_export, write_atomically
from lorta.system.terminal import counted

LIBRARIES = ("itables", "plotly")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    declare_filters(parser, "*")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    source.add_argument("--records", type=Path, nargs="+", help="exported by `lorta collect`")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.html", help="the file to write")
    parser.add_argument("--title", help="of the page (default: Results of ... and the name of the source)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="its records tell drift (default: results)"
    )


def run(options: argparse.Namespace) -> None:
    """Write the page. Raises ValueError with a sentence for bad input."""
    if options.to.suffix != ".html":
        raise ValueError(f"--to takes a file that ends in .html, got {options.to}.")
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise ValueError(f"the page needs {' and '.join(missing)}: pip install 'lorta[bench]'.")
    from lorta.reporting.html.assembly import make_page

    source = read_source(options.runs, options.records, with_losses=True)
    if not source.records:
        raise ValueError("there is no record to report: run a sweep first.")
    source = source._replace(records=kept(source.records, options.words))
    reference = _reference(options.results / "records", options.records or ())
    name = (options.records[0] if options.records else options.runs.resolve()).name.split(".")[0]
    page = make_page(name, source, reference, options.title)
    replaces = " (in place of the one of before)" if options.to.exists() else ""
    write_atomically(options.to, page)
    for sentence in _verdicts(source):
        print(sentence)
    print(f"{options.to}: {counted(len(source.records), 'run')}, {len(page.encode()) / 2**20:.1f} MiB{replaces}")
    if options.records is None:
        say_other_code(source.records)


def _verdicts(source: Source) -> list[str]:
    from lorta.analysis.questions import answer_questions, stated
    from lorta.analysis.summary import summarise
    from lorta.reporting.verdicts import verdict_sentences

    questions = stated(source.records)
    tables = summarise(source.records) if questions else ()
    return verdict_sentences(tables, answer_questions(tables, questions, source.items))


def _reference(folder: Path, read: Sequence[Path]) -> dict[str, RunRecord]:
    """Return the records of all other committed suites, by run."""
    taken = {file.resolve() for file in read}
    others = [file for file in sorted(folder.glob("*.jsonl*")) if file.resolve() not in taken]
    return {record.run_id: record for file in others for record in read_export(file)}
