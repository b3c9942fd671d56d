"""Text like that of a backbone's pre-training, as tokens and targets: on it, forgetting is measured.

Embedded backbones have the language that they were pre-trained on, drawn with a seed that pre-training did not have.
Others have `text/validation.jsonl` (or .jsonl.gz, a column `text`) under data.root, if it is there.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch

from lorta.config.settings import RunSettings
from lorta.diagnostics.errors import NotMeasured

IGNORED = -100  # cross_entropy's own mark for "no target here"
HELD_OUT = -1  # as a seed; the pre-training recipes have 0
ROWS, LENGTH = {"causal": 16, "masked": 256}, 128  # embedded rows of the masked objective have about 20 tokens
MASKED_SHARE = 0.15  # of the tokens of other texts: BERT, Devlin et al. 2019, 3.1; all become [MASK]
LOCAL_FILE = "text/validation.jsonl"
Objective = Literal["causal", "masked"]


@dataclass(frozen=True)
class BaseText:
    """Rows of tokens; `targets` holds at each position what is predicted there, IGNORED where nothing is.

    Under the causal objective the target of a position is the next token. Shapes: (rows, longest).
    """

    name: str
    objective: Objective
    ids: torch.Tensor
    attended: torch.Tensor  # 1 for tokens, 0 for padding
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return int((self.targets != IGNORED).sum())

    @property
    def sha256(self) -> str:
        """Hash of ids and targets."""
        return hashlib.sha256(json.dumps([self.ids.tolist(), self.targets.tolist()]).encode()).hexdigest()


def read_base_text(settings: RunSettings, tokenizer: Any, objective: Objective) -> BaseText:
    """Return the text of a run's backbone. Raises NotMeasured where there is none, or none that fits the tokenizer."""
    if settings.model.data == "embedded":
        return _embedded_causal(tokenizer) if objective == "causal" else _embedded_masked(tokenizer)
    root = settings.data.root
    places = [Path(root).expanduser() / f"{LOCAL_FILE}{end}" for end in ("", ".gz")] if root else []
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise NotMeasured(
            f"model={settings.model.name}: there is no text similar to its pre-training data; "
            f"put {LOCAL_FILE} with a column `text` under data.root"
        )
    rows = tokenizer(_texts(file), truncation=True, max_length=LENGTH)["input_ids"]
    if objective == "causal":
        return _causal(LOCAL_FILE, rows)
    return _masked(LOCAL_FILE, rows, tokenizer)


def _embedded_causal(tokenizer: Any) -> BaseText:
    from lorta.embedded.causal_pretraining import primer_tokens
    from lorta.embedded.instructions import INSTRUCT_REVISION

    tokens = primer_tokens(Random(f"primer {HELD_OUT}"), tokenizer)
    rows = [list(islice(tokens, LENGTH)) for _ in range(ROWS["causal"])]
    return _causal(f"embedded primer, revision {INSTRUCT_REVISION}", rows)


def _embedded_masked(tokenizer: Any) -> BaseText:
    from lorta.embedded.pretraining import Recipe, TextbookBatches
    from lorta.embedded.tasks import EMBEDDED_REVISION
    from lorta.embedded.vocabulary import PADDING

    batches = TextbookBatches(tokenizer, Recipe(seed=HELD_OUT, batch_size=ROWS["masked"]))
    ids, targets = batches.batch()
    return BaseText(f"embedded textbook, revision {EMBEDDED_REVISION}", "masked", ids, (ids != PADDING).long(), targets)


def _texts(file: Path) -> list[str]:
    """Return the first texts of a file of JSON lines. Raises NotMeasured for a line without `text`, and for none."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
        lines = [line for line in islice(stream, max(ROWS.values())) if line.strip()]
    try:
        texts = [str(json.loads(line)["text"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise NotMeasured(f"{file}: every line needs a JSON object with `text` ({error})") from error
    if not texts:
        raise NotMeasured(f"{file}: it has no line")
    return texts


def _causal(name: str, rows: list[list[int]]) -> BaseText:
    ids, attended = _padded(rows, 0), _padded([[1] * len(row) for row in rows], 0)
    return BaseText(name, "causal", ids, attended, _padded([[*row[1:], IGNORED] for row in rows], IGNORED))


def _masked(name: str, rows: list[list[int]], tokenizer: Any) -> BaseText:
    """Mask a share of the tokens that are not special, the same ones every time. Raises NotMeasured without [MASK]."""
    mask, special, random = tokenizer.mask_token_id, set(tokenizer.all_special_ids), Random(HELD_OUT)
    if mask is None:
        raise NotMeasured("the tokenizer has no mask token")
    hidden = [[token not in special and random.random() < MASKED_SHARE for token in row] for row in rows]
    pairs = [list(zip(row, hides, strict=True)) for row, hides in zip(rows, hidden, strict=True)]
    ids = _padded([[mask if hide else token for token, hide in row] for row in pairs], 0)
    targets = _padded([[token if hide else IGNORED for token, hide in row] for row in pairs], IGNORED)
    return BaseText(name, "masked", ids, _padded([[1] * len(row) for row in rows], 0), targets)


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    """Return rows of one length; padding is not attended, so its token does not matter."""
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
