"""The one JSON text of a value, its hash, and its dotted keys: what identities and comparisons are made of."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, cast


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def not_finite(value: Any, key: str) -> str | None:
    """Return the dotted key of the first number below `key` that is NaN or infinite, which JSON cannot say; or None."""
    if isinstance(value, dict):
        parts = {f"{key}.{name}": part for name, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, list):
        parts = {f"{key}[{place}]": part for place, part in enumerate(value)}  # pyright: ignore
    else:
        return key if isinstance(value, float) and not math.isfinite(value) else None
    return next(filter(None, (not_finite(part, name) for name, part in parts.items())), None)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of nested settings."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= (
            flat(cast(Mapping[str, Any], value), f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return pairs


def sha256(value: Any) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
