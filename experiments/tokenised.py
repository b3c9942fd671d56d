"""Tokenised rows, cached under a key that is derived from everything they depend on."""

import hashlib
import inspect
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.rows import Row, identities
from lorta.api.task import DataPlan
from lorta.config.settings import DataSettings
from lorta.models.tokenizer import tokenizer_sha256
from lorta.records.canonical import canonical_json
from lorta.records.file_modes import share
from lorta.records.row_counts import CAPS, TEXT_CUT, RowCount, RowsUnusable

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

HERE = Path(__file__).parent
COUNT = "rows.json"  # beside the cached columns
PACKAGES = ("tokenizers", "transformers")
NOT_READ = ("root", "source", "holdout")  # where files lie, and what is drawn from the cached rows
UNKNOWN_AT_MOST = 0.5  # of a data set's tokens


class Tokenised(NamedTuple):
    """Columns of a split, and what became of the rows that were read."""

    rows: "Dataset"
    count: RowCount


Columns = dict[str, list[Any]]


def cached(
    task: Any,
    plan: DataPlan,
    data: DataSettings,
    use: str,
    tokenizer: "PreTrainedTokenizerBase",
    make: Callable[[], tuple[Columns, RowCount]],
    cache: Path,
) -> Tokenised:
    """Return the columns of a split and its count as `make` returns them, which is called only where neither is cached.

    `task` is a dataclass, `use` the split's name in the plan. Raises RowsUnusable for a tokenizer that knows less than
    half of the text.
    """
    from datasets import Dataset

    folder = cache / "tokenised" / cache_key(task, plan, data, use, tokenizer)
    if not folder.is_dir():
        columns, count = make()
        if not count.used:
            return Tokenised(Dataset.from_dict(columns), count)  # a file of no rows cannot be read again
        refuse_unknown(f"task={task.name}, {use} rows", columns, tokenizer, {use: count})
        _save(Dataset.from_dict(columns), count, folder)
    return Tokenised(Dataset.load_from_disk(str(folder)), RowCount(**json.loads((folder / COUNT).read_text())))


def cache_key(task: Any, plan: DataPlan, data: DataSettings, use: str, tokenizer: Any) -> str:
    """Return 24 hexadecimal digits of all that a split's tokenised rows depend on: more than enough, never too little.

    All of the task's settings, all of the data's but those of the other split and of places, the rows' fingerprint,
    the tokenizer, and the code that reads and tokenises.
    """
    other_caps = {key.partition(".")[2] for split, key in CAPS.items() if split != use}
    parts = {
        "task": [type(task).__module__, type(task).__qualname__, asdict(task)],
        "rows": [use, plan.source, plan.revision, plan.fingerprints[use]],
        "data": data.model_dump(exclude={*NOT_READ, *other_caps}),
        "tokenizer": _tokenizer_parts(tokenizer),
        "code": code_sha256(inspect.getsourcefile(type(task))),
        "packages": _versions(),
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def _tokenizer_parts(tokenizer: Any) -> list[Any]:
    return [
        type(tokenizer).__qualname__,
        tokenizer_sha256(tokenizer),
        tokenizer.chat_template,
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        tokenizer.truncation_side,
        list(tokenizer.model_input_names),
    ]


@lru_cache
def _versions() -> list[str]:
    return [version(name) for name in PACKAGES]


@lru_cache
def code_sha256(task_file: str | None) -> str:
    """Return the SHA-256 of this package's sources and of the file that defines the task."""
    files: list[Path] = [*sorted(HERE.rglob("*.py")), *([Path(task_file)] if task_file else [])]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def encode_texts(
    rows: Sequence[Row],
    columns: Sequence[str],
    tokenizer: Any,
    max_length: int,
    regression: bool,
    count: RowCount,
    cluster: str | None = None,
) -> tuple[Columns, RowCount]:
    """Return input_ids, attention_mask (and token_type_ids), labels and idx, and the count with the texts that are cut.

    A row's texts are cut at `max_length` tokens. With `cluster`, a text column, there is also `cluster`: a short name
    that rows with the same text in it share.
    """
    texts = [[row[column] for row in rows] for column in columns]
    encoded = dict(tokenizer(*texts, truncation=True, max_length=max_length))
    full = [place for place, tokens in enumerate(encoded["input_ids"]) if len(tokens) == max_length]
    whole = tokenizer(*([column[place] for place in full] for column in texts), verbose=False) if full else {}
    cut = sum(len(tokens) > max_length for tokens in whole.get("input_ids", ()))
    encoded["labels"] = [float(row["label"]) if regression else int(row["label"]) for row in rows]
    encoded["idx"] = identities(rows)
    if cluster is not None:
        encoded["cluster"] = [cluster_name(row[cluster]) for row in rows]
    return encoded, count.noting(TEXT_CUT, cut)


def cluster_name(text: str) -> str:
    """Return 12 hexadecimal digits that name a text in predictions."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def refuse_unknown(
    what: str, columns: Mapping[str, Sequence[Sequence[int]]], tokenizer: Any, counts: Mapping[str, RowCount]
) -> None:
    """Raise RowsUnusable where more than half of the tokens are the unknown one, or none is more than a special one.

    Transformers makes an empty tokenizer for a folder without tokenizer files: all text is unknown to it.
    """
    special = set(tokenizer.all_special_ids)
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    unknown_id = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id
    texts = [rows for name, rows in columns.items() if name.endswith("_ids") and name != "token_type_ids"]
    tokens = Counter(chain.from_iterable(chain.from_iterable(texts)))
    unknown = 0 if unknown_id is None else tokens[unknown_id]
    known = sum(number for token, number in tokens.items() if token not in special and token != unknown_id)
    if known == 0 or unknown / (known + unknown) > UNKNOWN_AT_MOST:
        share = f"{unknown / (known + unknown):.0%} of their tokens are" if known + unknown else "all of their text is"
        raise RowsUnusable(
            f"{what}: {share} unknown to the tokenizer ({len(tokenizer)} tokens): its files are missing beside the "
            "model, or they are of another language; copy the tokenizer's files into the model's folder",
            counts,
        )


def _save(rows: "Dataset", count: RowCount, folder: Path) -> None:
    """Write beside the final place and rename: two runs may do so at once, a killed one leaves nothing half-written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    rows.save_to_disk(str(temporary))
    (temporary / COUNT).write_text(json.dumps(asdict(count)))
    share(temporary)
    try:
        temporary.rename(folder)
    except OSError:  # another run was first
        shutil.rmtree(temporary)
