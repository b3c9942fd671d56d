"""Questions as tokens: where the prompt ends and the answer begins, and what is cut when both are too long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.prompts import common_prefix
from experiments.questions.formats import Question
from experiments.tokenised import cluster_name

EQUAL_OPTIONS = "a right and a wrong option are the same tokens within data.max_length"


@dataclass(frozen=True)
class Encoded:
    """A prompt and the tokens behind it; `cut` says that something did not fit."""

    prompt: list[int]
    continuation: list[int]
    cut: bool


def encode(tokenizer: Any, prompt: str, continuation: str, max_length: int, end: bool = False) -> Encoded:
    """Return both parts, together at most `max_length` tokens.

    Both are tokenised as one text, as a reader meets them, and parted at the length of the prompt alone (lm_eval's
    rule), or where both part if nothing is left behind that: its last token and the continuation can be one. Of what is
    too long the beginning of the prompt goes, but for the begin-of-text token (MeZO's rule), then the end of the
    continuation. `end` adds the end-of-text token.
    """
    whole, alone = (_ids(tokenizer, text) for text in (prompt + continuation, prompt))
    length = len(alone) if len(whole) > len(alone) else common_prefix(whole, alone)
    start, behind = whole[:length], whole[length:]
    behind += [tokenizer.eos_token_id] if end else []
    begin = 1 if start[:1] == [tokenizer.bos_token_id] else 0
    room = max(max_length - len(behind), begin + 1)
    cut = len(start) > room or len(behind) > max_length - begin - 1
    if len(start) > room:
        start = start[:begin] + start[begin - room :]
    return Encoded(start, behind[: max_length - len(start)], cut)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids = list(tokenizer(text)["input_ids"])
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def training_rows(
    tokenizer: Any, questions: Sequence[Question], max_length: int, loss_on: str
) -> tuple[list[dict[str, list[int]]], int]:
    """Return a training row for each question, and of how many something is cut."""
    rows = [encode(tokenizer, question.prompt, question.answer, max_length, end=True) for question in questions]
    return [_learnt(row, loss_on) for row in rows], sum(row.cut for row in rows)


def _learnt(encoded: Encoded, loss_on: str) -> dict[str, list[int]]:
    ids = encoded.prompt + encoded.continuation
    labels = ids if loss_on == "all" else [-100] * len(encoded.prompt) + encoded.continuation
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


@dataclass(frozen=True)
class EvaluationRow:
    """A question to be scored: its tokens, and what its prediction row tells beside the prediction."""

    prompt_tokens: list[int]
    option_tokens: list[tuple[list[int], list[int]]]  # prompt and option, for each option
    told: dict[str, Any]

    @property
    def can_be_told(self) -> bool:
        """Whether no right option is, as far as it fits, the same as a wrong one: of equals the first would win."""
        right = [self.option_tokens[place] for place in self.told.get("correct", ())]
        wrong = [option for place, option in enumerate(self.option_tokens) if place not in self.told.get("correct", ())]
        return not any(option in wrong for option in right)


def evaluation_row(tokenizer: Any, idx: int, question: Question, max_length: int) -> EvaluationRow:
    """Return the question with its options; `cut` in `told` says that something was longer than `max_length` tokens."""
    alone = encode(tokenizer, question.prompt, "", max_length)
    options = [encode(tokenizer, question.prompt, option, max_length) for option in question.options]
    told: dict[str, Any] = {"idx": idx, "references": list(question.references)}
    if question.options:
        told |= {"names": list(question.names), "correct": list(question.correct)}
    told |= {} if question.cluster is None else {"cluster": cluster_name(question.cluster)}
    told["cut"] = alone.cut or any(option.cut for option in options)
    return EvaluationRow(alone.prompt, [(option.prompt, option.continuation) for option in options], told)
