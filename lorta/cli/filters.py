"""Which runs of a store a command line's filters mean, such as `adapter=lo* status=failed`. No torch."""

import argparse
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from lorta.config.suggestions import did_you_mean
from lorta.records.canonical import flat
from lorta.records.record import RunRecord
from lorta.records.sections import Status
from lorta.status.states import RawRecord, glances

SHORT = {  # words of a filter -> where a record has them
    "adapter": ("adapter", "name"),
    "rank": ("adapter", "rank"),
    "task": ("task", "name"),
    "model": ("config", "model", "name"),
    "seed": ("seed",),
    "status": ("status",),
    "id": ("run_id",),
}
PATTERN = frozenset("*?[")


def declare_filters(parser: argparse.ArgumentParser, count: str) -> None:
    """Take filters."""
    keys = ", ".join(SHORT)
    parser.add_argument(
        "words", nargs=count, metavar="KEY=VALUE", help=f"{keys}, or a key such as trainer.learning_rate; lo* and a,b"
    )


def require_store(root: Path) -> None:
    """Raise ValueError for a folder that is not there."""
    if not root.is_dir():
        raise ValueError(f"there is no store {root}: name it with --runs")


def filtered(root: Path, words: Sequence[str]) -> list[RawRecord]:
    """Return the runs of a store that pass all filters. Raises ValueError for a word that is none."""
    require_store(root)
    return _passing(list(glances(root)), words)


def kept(records: list[RunRecord], words: Sequence[str]) -> list[RunRecord]:
    """Return the records that pass all filters. Raises ValueError for a word that is none, and if nothing is left."""
    passing = {record.get("run_id") for record in _passing([_raw(record) for record in records], words)}
    chosen = [record for record in records if record.run_id in passing]
    if not chosen:
        raise ValueError(f"{' '.join(words)}: no run passes these filters")
    return chosen


def _passing(records: list[RawRecord], words: Sequence[str]) -> list[RawRecord]:
    filters = _read(words, records)
    _refuse_unknown_status(filters.get("status", []))
    for key in filters:
        _refuse_unknown_key(key, records)
    return [record for record in records if all(_passes(record, *one) for one in filters.items())]


def _read(words: Sequence[str], records: Sequence[RawRecord]) -> dict[str, list[str]]:
    """Return the patterns of each key. Raises ValueError for a word that is no KEY=VALUE, and for a key given twice."""
    filters: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word}: a filter is KEY=VALUE, such as {_example(word, records)}")
        if key in filters:
            both = ",".join([*filters[key], value])
            raise ValueError(f"{key} is given twice: {key}={both} takes runs of either value")
        filters[key] = value.split(",")
    return filters


def _example(word: str, records: Sequence[RawRecord]) -> str:
    """Return a filter that a word without a key may mean, if it is a name in these runs."""
    for key in ("adapter", "task", "model"):
        if word and any(word == record.get(*SHORT[key]) for record in records):
            return f"{key}={word}"
    return "adapter=lora or status=failed"


def _raw(record: RunRecord) -> RawRecord:
    adapter = record.adapter and {"name": record.adapter.name, "rank": record.adapter.rank}
    names = {"adapter": adapter or {"name": record.choices.get("adapter")}}
    names["task"] = {"name": record.task.name if record.task else record.choices.get("task")}
    values = {"run_id": record.run_id, "seed": record.seed, "status": record.status, "config": record.config, **names}
    return RawRecord(Path(), values)


def _refuse_unknown_status(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not PATTERN & set(pattern) and pattern not in get_args(Status):
            raise ValueError(f"status={pattern}: no such status{did_you_mean(pattern, get_args(Status))}")


def _refuse_unknown_key(key: str, records: Sequence[RawRecord]) -> None:
    """Raise ValueError for a key that no run of the store has; a store without runs has none to ask."""
    if key in SHORT or not records or any(key in keys for keys in map(_keys, records)):
        return
    known = [*SHORT, *dict.fromkeys(name for record in records for name in _keys(record))]
    hint = did_you_mean(key, known)
    if hint.startswith("; there are"):  # which would be a hundred
        hint = did_you_mean("", list(SHORT)) + ", and the settings that `lorta diff` names, such as trainer.precision"
    raise ValueError(f"{key}: no run has such a key{hint}")


def _keys(record: RawRecord) -> Iterator[str]:
    return iter(flat(record.get("config") or {}))


def _passes(record: RawRecord, key: str, patterns: Sequence[str]) -> bool:
    value = record.get(*SHORT.get(key, ("config", *key.split("."))))
    text = "null" if value is None else str(value)
    return any(fnmatch.fnmatch(text, pattern) or _same_number(text, pattern) for pattern in patterns)


def _same_number(text: str, pattern: str) -> bool:
    try:
        return float(text) == float(pattern)
    except ValueError:
        return False
