"""Tokenised rows, cached under a fingerprint that names everything they depend on."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.rows import Row, identities
from lorta.models.tokenizer import tokenizer_sha256
from lorta.records.canonical import canonical_json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

VERSION = 1  # raised when the layout below changes


def tokenise(
    read: Callable[[], Sequence[Row]],
    fingerprint: str,
    columns: tuple[str, ...],
    limit: int | None,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    regression: bool,
    cache: Path,
) -> "Dataset":
    """Return input_ids, attention_mask (and token_type_ids), labels and idx; `read` is called only on a cache miss.

    `fingerprint` fixes the rows that `read` returns before `limit` is applied; lengths are in tokens.
    """
    parts = [VERSION, fingerprint, columns, limit, tokenizer_sha256(tokenizer), max_length, regression]
    return cached(parts, lambda: _encode(read(), columns, tokenizer, max_length, regression), cache)


def cached(parts: Sequence[Any], make: Callable[[], dict[str, list[Any]]], cache: Path) -> "Dataset":
    """Return the columns that `make` returns, which is called only where no earlier call had the same `parts`."""
    from datasets import Dataset

    folder = cache / "tokenised" / hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]
    if not folder.is_dir():
        _save(Dataset.from_dict(make()), folder)
    return Dataset.load_from_disk(str(folder))


def _encode(
    rows: Sequence[Row], columns: tuple[str, ...], tokenizer: Any, max_length: int, regression: bool
) -> dict[str, list[Any]]:
    texts = [[row[column] for row in rows] for column in columns]
    encoded = dict(tokenizer(*texts, truncation=True, max_length=max_length))
    encoded["labels"] = [float(row["label"]) if regression else int(row["label"]) for row in rows]
    encoded["idx"] = identities(rows)
    return encoded


def _save(rows: "Dataset", folder: Path) -> None:
    """Write beside the final place and rename: two runs may do so at once, a killed one leaves nothing half-written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    rows.save_to_disk(str(temporary))
    try:
        temporary.rename(folder)
    except OSError:  # another run was first
        shutil.rmtree(temporary)
