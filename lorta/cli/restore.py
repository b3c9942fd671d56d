"""`lorta restore results/records/NAME.jsonl.gz`: committed records count as done, so that a clone runs only the rest.

Records go to the store with the scores of their rows. Predictions, histories and adapters were not committed and are
not there afterwards. Everything is checked before anything is written.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorta.analysis.item_scores import Line
    from lorta.records.record import RunRecord
    from lorta.records.store import Store

OUTCOMES = {
    "restored": "restored",
    "there": "already in the store, left as they are",
    "at work": "at work in the store, left to it",
    "no result": "without a result, not restored",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Take exported files and the store."""
    parser.add_argument("records", type=Path, nargs="+", metavar="FILE", help="written by `lorta collect`")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")


def run(parsed: argparse.Namespace) -> None:
    """Write the records to the store. Raises ValueError for records that are not as they were collected."""
    from lorta.records.store import Store

    store, checked = Store(parsed.runs), [(file, *_checked(file)) for file in parsed.records]
    for file, records, lines in checked:
        counts = Counter(_restore(record, lines.get(record.run_id), store) for record in records)
        said = ", ".join(f"{counts[name]} {words}" for name, words in OUTCOMES.items() if counts[name])
        print(f"{file}: {said or 'no records'}")


def _checked(file: Path) -> "tuple[list[RunRecord], dict[str, Line]]":
    """Return the records of a file and the scores of their rows. Raises ValueError for what was changed."""
    from lorta.analysis.item_scores import items_file, read_lines
    from lorta.analysis.validation import refuse_untrusted
    from lorta.records.store import read_export
    from lorta.records.suites import require_unchanged

    if not file.is_file():
        what = f"{file} is a folder" if file.is_dir() else f"there is no {file}"
        raise ValueError(f"{what}: name a file that `lorta collect` wrote")
    require_unchanged(file)
    records, items = read_export(file), items_file(file.parent.parent, file.name.split(".")[0])
    refuse_untrusted(records, str(file))
    if items.is_file():
        require_unchanged(items)
    return records, {line.run_id: line for line in read_lines(items, records)}


def _restore(record: "RunRecord", line: "Line | None", store: "Store") -> str:
    """Write a record that counts as done, and return which of OUTCOMES it was."""
    from lorta.analysis.item_scores import keep_line
    from lorta.planning.lr_search import has_ended_for_search
    from lorta.records.locks import take

    if record.status != "success" and not (record.is_trial and has_ended_for_search(record)):
        return "no result"
    if store.finished(record.run_id):
        return "there"
    claim = take(store.folder(record.run_id))
    if claim is None:
        return "at work"
    with claim:
        store.write(record)
        if line is not None:
            keep_line(line, store)
    return "restored"
