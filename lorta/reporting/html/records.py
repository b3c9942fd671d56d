"""All records of a page as one compressed text: what many of them share, such as package versions, is in it once."""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, cast

from lorta.analysis.losses import Losses
from lorta.records.codec import encode
from lorta.records.record import RunRecord

SHARED = "="  # the key of a reference to a shared value


def pack(content: Mapping[str, Any] | str) -> str:
    """Return JSON, compressed, in base64; the same content gives the same text."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def curves(losses: Losses) -> dict[str, Any]:
    """Return {"steps": [...], "losses": {run: [place of its steps, its losses]}}: equal steps are kept once."""
    places: dict[tuple[int, ...], int] = {}
    of_runs = {
        run: [places.setdefault(losses[run].steps, len(places)), list(losses[run].losses)] for run in sorted(losses)
    }
    return {"steps": [list(steps) for steps in places], "losses": of_runs}


def share(records: Iterable[RunRecord]) -> dict[str, Any]:
    """Return {"shared": [...], "records": {run: ...}}: each distinct section once, named by {"=": its place}."""
    places: dict[str, int] = {}
    shared: list[Any] = []

    def refer(value: Any, depth: int) -> Any:
        if not isinstance(value, dict) or not value:
            return value
        section = cast(dict[str, Any], value)
        inner = {key: refer(part, depth - 1) for key, part in section.items()} if depth else section
        text = json.dumps(inner, sort_keys=True)
        if text not in places:
            places[text] = len(shared)
            shared.append(inner)
        return {SHARED: places[text]}

    sections_of = {record.run_id: _sections(record) for record in records}
    packed = {run: {key: refer(value, 1) for key, value in sections_of[run].items()} for run in sorted(sections_of)}
    return {"shared": shared, "records": packed}


def _sections(record: RunRecord) -> dict[str, Any]:
    """Return a record's values without later fields that it lacks: a page stays as it is when records get more."""
    return _without_lacking(record, encode(record, "", {}))


def _without_lacking(section: Any, values: Any) -> Any:
    if type(values) is not dict:  # nearly all values: a leaf has no fields
        return values
    if isinstance(section, Mapping):
        parts = {str(key): part for key, part in cast(Mapping[Any, Any], section).items()}
        return {key: _without_lacking(parts[key], value) for key, value in cast(dict[str, Any], values).items()}
    if not is_dataclass(section):
        return values
    parts = {name: getattr(section, name) for name in _names(type(section))}
    lacked = {name for name, default in _later(type(section)) if parts[name] == default}
    return {name: _without_lacking(part, values[name]) for name, part in parts.items() if name not in lacked}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind))


@cache
def _later(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Return the fields that records got later, each with what stands for its lack."""
    return tuple((item.name, item.default) for item in fields(kind) if item.metadata.get("added"))
