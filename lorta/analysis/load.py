"""What reports are made of: records with the scores of their rows and their losses, from a store or exported suites."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorta.analysis.imported import counted_items
from lorta.analysis.item_scores import ItemScores, items_file, read_items, stored_items
from lorta.analysis.losses import History, Losses, from_store, losses_file, read_losses
from lorta.analysis.validation import refuse_untrusted, without_score_failed
from lorta.records.record import RunRecord
from lorta.records.store import Store, read_export


class Source(NamedTuple):
    """Records, and what is known beside them, by run."""

    records: list[RunRecord]
    items: ItemScores
    losses: Losses


def read_source(
    runs: Path | None, files: Sequence[Path] | None, with_losses: bool = False, uncommitted: bool = False
) -> Source:
    """Return the records of exported suites, which must be trusted, or else those of a store; losses if asked for.

    `uncommitted` takes records of code that was not committed as well.

    Raises ValueError for what is not there, cannot be read or is not trusted.
    """
    if files is None:
        if runs is None or not runs.exists():
            raise ValueError(f"there is no {runs}: run a sweep, or name the records with --records or --runs.")
        store = Store(runs)
        records = without_score_failed(store.records())
        items = {**stored_items(records, store), **counted_items(records)}
        return Source(records, items, from_store(records, store) if with_losses else {})
    exported: list[RunRecord] = []
    items: dict[str, tuple[float, ...]] = {}
    losses: dict[str, History] = {}
    for file in files:
        if not file.exists():
            raise ValueError(f"there is no {file}: name exported records with --records, or runs with --runs.")
        records, results, suite = read_export(file), file.parent.parent, file.name.split(".")[0]
        refuse_untrusted(records, str(file), uncommitted)
        exported += without_score_failed(records)
        items |= read_items(items_file(results, suite), records)
        losses |= read_losses(losses_file(results, suite), records) if with_losses else {}
    return Source(exported, {**items, **counted_items(exported)}, losses)
