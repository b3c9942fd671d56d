"""Loads tokenizers, and says which one it was."""

import copy
import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from lorta.models.hub import small_files
from lorta.models.locate import TOKENIZERS, ModelFiles

FEWEST_TOKENS = 10  # of a vocabulary, special ones excluded; ESM-2's, one for each amino acid, has 28
_kept: dict[tuple[str, str | None], "PreTrainedTokenizerBase"] = {}  # each is handed out once: users change tokenizers
_masters: dict[tuple[str, str | None], "PreTrainedTokenizerBase | None"] = {}  # of those: later runs get copies


def load_tokenizer(files: ModelFiles) -> "PreTrainedTokenizerBase":
    """Return the model's fast tokenizer, without running code from its repository.

    Raises ValueError for the empty one that transformers 5 makes of a folder without its files.
    """
    place = files.location, files.revision
    if place in _kept:
        _masters.setdefault(place)
        return _kept.pop(place)
    if place not in _masters:
        return _load(files)
    master = _masters[place]
    if master is None:
        master = _masters[place] = _load(files)
    return copy.deepcopy(master)


def _load(files: ModelFiles) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    folder = small_files(files.location, files.revision, TOKENIZERS) if files.revision else files.location
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    own = len(tokenizer) - len(tokenizer.all_special_tokens)
    if own < FEWEST_TOKENS:
        raise ValueError(
            f"{files.location}: its tokenizer knows {own} tokens besides the special ones, as transformers makes one "
            "where files are missing: save the model's tokenizer beside it"
        )
    return tokenizer


def keep_tokenizer(files: ModelFiles) -> None:
    """Load the model's tokenizer for the next `load_tokenizer`, of this process or of each that is forked from it.

    That one gets this tokenizer itself, later ones copies of another.
    """
    _kept[files.location, files.revision] = load_tokenizer(files)


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return the hash of a fast tokenizer: vocabulary, merges, normalisation, special tokens.

    Padding and truncation are left out: calling a tokenizer changes them. Of a slow one (ESM's) it is the vocabulary's.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
    return _sha256_of(tokenizer.backend_tokenizer.to_str())


@lru_cache(maxsize=4)
def _sha256_of(description: str) -> str:
    state = json.loads(description)
    kept = {key: value for key, value in state.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
