"""The one JSON text of a value, and its hash: what identities and fingerprints are made of."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(value: Any) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
