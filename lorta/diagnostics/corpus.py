"""Text like that of a backbone's pre-training, as tokens and targets: on it, forgetting is measured.

Embedded backbones have the language that they were pre-trained on, drawn with a seed that pre-training did not have.
Others have `text/validation.jsonl` (or .jsonl.gz, a column `text`) under data.root; without it, a decoder has the
held-out answers of another task there.
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
LOCAL_FILE, COLUMN = "text/validation.jsonl", "text"
MOST_ANSWERS = 32  # they are short, and real decoders slow: all would take minutes a run
OTHER_ANSWERS = (("instruct/alpaca/validation.jsonl", "output"), ("preference/alpaca_eval/validation.jsonl", "chosen"))
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
    name, texts = _local_texts(settings, objective)
    rows = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    if objective == "causal":
        if not (rows := [row for row in rows if len(row) > 1]):
            raise NotMeasured(f"{name}: no text has two tokens")
        return _causal(name, rows)
    return _masked(name, rows, tokenizer)


def _local_texts(settings: RunSettings, objective: Objective) -> tuple[str, list[str]]:
    """Return the file below data.root that serves a run, and its texts. Raises NotMeasured where there is none."""
    sources = [(LOCAL_FILE, COLUMN)]
    if objective == "causal":
        own = str((settings.task.get("source") or {}).get("local"))
        sources += [source for source in OTHER_ANSWERS if not source[0].startswith(f"{own}/")]
    root = Path(settings.data.root or "").expanduser()
    for name, column in sources if settings.data.root else []:
        for place in (root / name, root / f"{name}.gz"):
            if place.is_file():
                return name, _texts(place, column, max(ROWS.values()) if name == LOCAL_FILE else MOST_ANSWERS)
    raise NotMeasured(
        f"model={settings.model.name}: there is no text similar to its pre-training data; "
        f"put {LOCAL_FILE} with a column `text` under data.root"
    )


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


def _texts(file: Path, column: str, most: int) -> list[str]:
    """Return the first texts of a file of JSON lines. Raises NotMeasured for a line without `column`, and for none."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
        lines = [line for line in islice(stream, most) if line.strip()]
    try:
        texts = [str(json.loads(line)[column]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise NotMeasured(f"{file}: every line needs a JSON object with `{column}` ({error})") from error
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
