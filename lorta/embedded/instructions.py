"""Instructions in the embedded language, in Alpaca's columns, and pairs of answers to them. Own design; no torch.

| rows         | columns                    | format after                                                       |
|--------------|----------------------------|--------------------------------------------------------------------|
| `instruct`   | instruction, input, output | Alpaca, Taori et al. 2023 (tatsu-lab/stanford_alpaca)               |
| `preference` | prompt, chosen, rejected   | preference data as DPO reads it, Rafailov et al. 2023, section 4   |

The pre-trained decoder works the answers out where a cue word stands among others, but has seen none of these
sentences: of half of them it has to learn what they ask. `rejected` is an answer to the same text with one fault: roles
exchanged, nothing done, the other label.
"""

import json
from functools import cache
from random import Random
from typing import Any

from lorta.embedded.operations import OPERATIONS, Exercise
from lorta.embedded.tasks import FINGERPRINTS

INSTRUCT_REVISION = "1"  # raised whenever a row changes
SIZES = {"instruct": {"train": 1200, "validation": 200}, "preference": {"train": 1200, "validation": 200}}
COLUMNS = {"instruct": ("instruction", "input", "output"), "preference": ("prompt", "chosen", "rejected")}
WORDINGS: dict[str, tuple[str, ...]] = {
    "passive": ("Rewrite the sentence in the passive voice.", "Begin with the one it is done to."),
    "active": ("Rewrite the sentence in the active voice.", "Begin with the one who does it."),
    "synonym": ("Say the same with another verb.", "Replace the verb by a synonym."),
    "swap": ("Let subject and object change places.", "Write the opposite sentence."),
    "subject": ("Who is doing it?", "Find the subject of the sentence."),
    "object": ("Who is it done to?", "Find the object of the sentence."),
    "kind": ("Name the kind of this word.", "What sort of thing is it?"),
    "verdict": ("Is the last word of the review liked or panned?", "Classify the review."),
    "truth": ("Answer the question with yes or no.", "Read the text and answer the question."),
    "sum": ("Work out the sum.", "Calculate the result."),
}


def _draw(random: Random) -> tuple[str, Exercise]:
    operation = random.choice(tuple(OPERATIONS))
    return random.choice(WORDINGS[operation]), OPERATIONS[operation](random)


def _instruct(random: Random) -> tuple[str, ...]:
    instruction, exercise = _draw(random)
    return instruction, exercise.given, exercise.answer


def _preference(random: Random) -> tuple[str, ...]:
    instruction, exercise = _draw(random)
    return f"{instruction}\n{exercise.given}", exercise.answer, random.choice(exercise.wrong)


_DRAW = {"instruct": _instruct, "preference": _preference}


@cache
def _splits(kind: str) -> dict[str, list[dict[str, Any]]]:
    """Draw both splits; no prompt occurs in both, few texts (single words, sums) repeat within one."""
    random, splits, taken = Random(f"{kind} {INSTRUCT_REVISION}"), {}, set()
    for split, size in reversed(SIZES[kind].items()):  # the held-out prompts first, the others avoid them
        rows: list[dict[str, Any]] = []
        while len(rows) < size:
            values = _DRAW[kind](random)
            prompt = values[:-1] if kind == "instruct" else values[:1]
            if prompt not in taken:
                rows.append({**dict(zip(COLUMNS[kind], values, strict=True)), "idx": len(rows)})
        splits[split] = rows
        taken = {tuple(row[name] for name in COLUMNS[kind][: len(prompt)]) for row in rows}
    return splits


def text_rows(kind: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of a split, `idx` included. Raises ValueError for an unknown kind or split."""
    _check(kind, split)
    return [dict(row) for row in _splits(kind)[split]]


def text_fingerprint(kind: str, split: str) -> str:
    """Return the committed SHA-256 of a split without drawing it. Raises ValueError for an unknown kind or split."""
    _check(kind, split)
    return json.loads(FINGERPRINTS.read_text(encoding="utf-8"))[kind][split]


def _check(kind: str, split: str) -> None:
    if kind not in SIZES or split not in SIZES[kind]:
        raise ValueError(f"The embedded texts have no {kind!r} of split {split!r}; there are instruct and preference.")
