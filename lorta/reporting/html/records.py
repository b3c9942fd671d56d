"""All records of a page as one compressed text: what many of them share, such as package versions, is in it once."""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, cast

from lorta.analysis.losses import Losses
from lorta.records.codec import encode
from lorta.records.record import RunRecord

SHARED = "="  # the key of a reference to a shared value


def pack(content: Mapping[str, Any]) -> str:
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
    if isinstance(section, Mapping):
        parts = {str(key): part for key, part in cast(Mapping[Any, Any], section).items()}
        return {key: _without_lacking(parts[key], value) for key, value in values.items()}
    if not is_dataclass(section):
        return values
    kept = [item for item in fields(section) if not _lacks(section, item)]
    return {item.name: _without_lacking(getattr(section, item.name), values[item.name]) for item in kept}


def _lacks(section: Any, item: Field[Any]) -> bool:
    return bool(item.metadata.get("added")) and getattr(section, item.name) == item.default
