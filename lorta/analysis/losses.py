"""Training losses of runs, thinned: what is kept of their histories beside exported records, for plots.

A record names its history by sha256; the history itself stays with the run.
"""

import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorta.records.record import RunRecord
from lorta.records.store import Store, write_atomically

MOST_POINTS = 40  # of a run
DIGITS = 4  # significant ones of a loss


@dataclass(frozen=True)
class History:
    """One run's losses, `steps` rising; `history_sha256` ties them to the record's history."""

    run_id: str
    history_sha256: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]

    @classmethod
    def from_json(cls, text: str) -> "History":
        """Read a line. Raises ValueError for anything else."""
        try:
            values = json.loads(text)
            history = cls(**{**values, "steps": tuple(values["steps"]), "losses": tuple(map(float, values["losses"]))})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it needs exactly run_id, history_sha256, steps and losses: {error}") from error
        if len(history.steps) != len(history.losses):
            raise ValueError(f"run {history.run_id} has {len(history.steps)} steps and {len(history.losses)} losses")
        return history


Losses = Mapping[str, History]  # by run_id


def thinned(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return (step, loss) of at most MOST_POINTS finite rows: evenly spaced ones, the first and the last among them."""
    known = [(int(row["step"]), float(row["loss"])) for row in rows if "step" in row and row.get("loss") is not None]
    finite = [(step, float(f"{loss:.{DIGITS}g}")) for step, loss in known if math.isfinite(loss)]
    if len(finite) <= MOST_POINTS:
        return finite
    return [finite[round(place * (len(finite) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]


def from_store(records: Iterable[RunRecord], store: Store) -> dict[str, History]:
    """Return the losses of all runs whose history is there. Raises ValueError for a changed history."""
    histories: dict[str, History] = {}
    for record in records:
        file = record.history_file
        if file is None or not (store.folder(record.run_id) / file.path).is_file():
            continue
        if points := thinned(store.read_rows(record.run_id, file)):
            steps, losses = zip(*points, strict=True)
            histories[record.run_id] = History(record.run_id, file.sha256, steps, losses)
    return histories


def losses_file(results: Path, suite: str) -> Path:
    """Return where the losses of a suite are kept."""
    return results / "histories" / f"{suite}.jsonl.gz"


def collect_losses(records: Sequence[RunRecord], store: Store, results: Path, suite: str) -> int:
    """Keep the losses beside a suite's records and return how many runs have them.

    Runs whose history is gone from the store keep what was kept before. Raises ValueError for a history that is not
    that of its record.
    """
    path = losses_file(results, suite)
    histories = {**read_losses(path, records), **from_store(records, store)}
    if histories:
        text = "".join(f"{json.dumps(vars(histories[run]))}\n" for run in sorted(histories))
        write_atomically(path, gzip.compress(text.encode(), mtime=0))
    return len(histories)


def read_losses(path: Path, records: Iterable[RunRecord]) -> dict[str, History]:
    """Return the losses of these records, or nothing when there is no such file.

    Raises ValueError for a line that is torn or belongs to another history than that of its record.
    """
    if not path.is_file():
        return {}
    known = {record.run_id: record for record in records}
    histories: dict[str, History] = {}
    for number, text in enumerate(gzip.decompress(path.read_bytes()).decode().splitlines(), 1):
        try:
            line = History.from_json(text)
            if line.run_id not in known:
                continue
            file = known[line.run_id].history_file
            if file is None or file.sha256 != line.history_sha256:
                raise ValueError(f"run {line.run_id} has another history than these losses come from")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {str(error).rstrip('.')}; collect the suite again.") from error
        histories[line.run_id] = line
    return histories
