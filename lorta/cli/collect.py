"""`lorta collect`: a sweep's records, the scores of their rows and their losses as one suite. No torch."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorta.cli.filters import require_store
from lorta.cli.sweep import BAD_INPUT, declare_store, planned_by
from lorta.system.terminal import counted

if TYPE_CHECKING:
    from lorta.records.record import RunRecord
    from lorta.records.store import Store


def declare(parser: argparse.ArgumentParser) -> None:
    """Take overrides and where to write."""
    declare_store(parser)
    parser.add_argument("--name", help="file name without an ending (default: runtime.name, or that of the store)")
    parser.add_argument(
        "--results", type=Path, help="(default: results/local, which git ignores; with --name results, to commit it)"
    )
    parser.add_argument("--records", type=Path, help="a suite collected before: leave it, add what stands beside it")


def run(parsed: argparse.Namespace) -> int:
    """Collect a suite, or only what a suite that was collected before lacks."""
    if parsed.results is None:  # results/records/SHA256SUMS is a committed file: it names what was asked for alone
        parsed.results = Path("results" if parsed.name else "results/local")
    return _collect_suite(parsed) if parsed.records is None else _collect_items(parsed)


def _collect_suite(parsed: argparse.Namespace) -> int:
    """Write the records of a sweep, or of a whole store, to RESULTS/records/NAME.jsonl, many of them compressed.

    The scores of their rows go to RESULTS/predictions/NAME.jsonl.gz, their losses to RESULTS/histories/NAME.jsonl.gz.
    """
    from lorta.analysis.validation import validation_problems
    from lorta.records.suites import export_suite, suite_sums

    suite = _of_overrides(parsed) if parsed.overrides else _of_store(parsed)
    if suite is None:
        return BAD_INPUT
    records, store, name, missing = suite
    if not records:
        raise ValueError("there is no record to collect: run the sweep first")
    before = suite_sums(parsed.results, name)
    path = export_suite(records, parsed.results, name)
    beside = _collect_beside(records, store, parsed.results, name)
    states = sorted(Counter(record.status for record in records).items())
    counts = ", ".join(f"{count} {state}" for state, count in states)
    print(f"{path}: {counted(len(records), 'record')} ({counts}), {beside}")
    _say_replaced(before, parsed.results, name)
    if missing:
        print(f"{counted(missing, 'run')} of the sweep without a record so far", file=sys.stderr)
    for problem in validation_problems(records):
        print(f"`lorta table` will refuse this suite: {problem}", file=sys.stderr)
    return 0


def _of_overrides(parsed: argparse.Namespace) -> "tuple[list[RunRecord], Store, str, int] | None":
    """Return a sweep's records, their store, the suite's name and how many are missing; None for a wrong sweep."""
    from lorta.planning.requests import with_requests
    from lorta.records.store import Store

    planned = planned_by(parsed)
    if planned is None:
        return None
    runtime = planned.runs[0].settings.runtime
    store = Store(runtime.runs)
    read = [(store.last(spec.run_id), spec) for spec in planned.runs]
    records = [with_requests(record, spec) for record, spec in read if record is not None]
    return records, store, parsed.name or runtime.name, len(planned.runs) + len(planned.waiting) - len(records)


def _of_store(parsed: argparse.Namespace) -> "tuple[list[RunRecord], Store, str, int]":
    from lorta.records.store import Store

    require_store(parsed.runs)
    store = Store(parsed.runs)
    return store.records(), store, parsed.name or parsed.runs.resolve().name, 0


def _collect_items(parsed: argparse.Namespace) -> int:
    """Add scores of rows, and losses, to a suite that was collected without them, which stays as it is."""
    from lorta.records.store import Store, read_export
    from lorta.records.suites import suite_sums

    if parsed.overrides or parsed.name:
        raise ValueError("--records names the suite and its runs: give neither overrides nor --name")
    require_store(parsed.runs)
    name, results = parsed.records.name.split(".")[0], parsed.records.parent.parent
    records, before = read_export(parsed.records), suite_sums(results, name)
    beside = _collect_beside(records, Store(parsed.runs), results, name)
    print(f"{parsed.records}: of {counted(len(records), 'record')}, {beside}")
    _say_replaced(before, results, name)
    return 0


def _say_replaced(before: Mapping[Path, str], results: Path, name: str) -> None:
    """Say which files of a suite have other bytes than before, or are gone; nothing where they are the same."""
    from lorta.records.suites import replaced_sentence, suite_sums

    if sentence := replaced_sentence(before, suite_sums(results, name)):
        print(sentence, file=sys.stderr)


def _collect_beside(records: "Sequence[RunRecord]", store: "Store", results: Path, name: str) -> str:
    """Write what stands beside a suite's records, and say how many have it."""
    from lorta.analysis.item_scores import collect_items
    from lorta.analysis.losses import collect_losses

    rows, losses = collect_items(records, store, results, name), collect_losses(records, store, results, name)
    return f"{rows} with the scores of their rows, {losses} with losses"
