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
        "words",
        nargs=count,
        metavar="KEY=VALUE",
        help=f"{keys}, or a key such as trainer.learning_rate; a name alone is an adapter, task or model; lo* and a,b",
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
    filters, names = _read(words)
    _refuse_unknown_status(filters.get("status", []))
    for key in filters:
        _refuse_unknown_key(key, records)
    for name in (name for either in names for name in either):
        _refuse_unknown_name(name, records)
    return [
        record
        for record in records
        if all(_passes(record, *one) for one in filters.items())
        and all(any(_is_named(record, name) for name in either) for either in names)
    ]


def _read(words: Sequence[str]) -> tuple[dict[str, list[str]], list[list[str]]]:
    """Return the patterns of each key, and of each word without one. Raises ValueError for a key given twice."""
    filters: dict[str, list[str]] = {}
    names: list[list[str]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and key:
            names.append(key.split(","))
        elif not key:
            raise ValueError(f"{word}: a filter is KEY=VALUE, such as adapter=lora, or a name, such as lora")
        elif key in filters:
            both = ",".join([*filters[key], value])
            raise ValueError(f"{key} is given twice: {key}={both} takes runs of either value")
        else:
            filters[key] = value.split(",")
    return filters, names


def _names(record: RawRecord) -> list[str]:
    """Return what a run may be called by: its adapter, its task with and without its family, and its model."""
    texts = [str(name) for key in ("adapter", "task", "model") if (name := record.get(*SHORT[key]))]
    return [*texts, *(text.rpartition("/")[2] for text in texts if "/" in text)]


def _is_named(record: RawRecord, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for name in _names(record))


def _refuse_unknown_name(name: str, records: Sequence[RawRecord]) -> None:
    """Raise ValueError for a name that no run of the store has; a store without runs has none to ask."""
    if records and not any(_is_named(record, name) for record in records):
        known = dict.fromkeys(text for record in records for text in _names(record))
        raise ValueError(f"{name}: no adapter, task or model of these runs{did_you_mean(name, list(known))}")


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
