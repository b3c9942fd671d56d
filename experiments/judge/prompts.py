"""What the judge is asked: MT-Bench's questions, FastChat's judge prompts, reference answers, and answers to judge.

Zheng et al. 2023, arXiv:2306.05685; the files are those of lm-sys/FastChat, fastchat/llm_judge/data.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.files import read_lines
from experiments.judge.settings import JudgeSettings
from lorta.records.canonical import canonical_json

WITH_REFERENCE = ("math", "reasoning", "coding")  # categories judged against a reference (FastChat's NEED_REF_CATS)
PROMPT_NAMES = [
    f"{kind}{multi}"
    for kind in ("single-v1", "single-math-v1", "pair-v2", "pair-math-v1")
    for multi in ("", "-multi-turn")
]
Turns = Sequence[str]


@dataclass(frozen=True)
class Question:
    """A question of one turn or two, and reference answers for its turns where it has them."""

    question_id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One thing to ask the judge. `order` says whose answer stands first where two are compared."""

    question: Question
    turn: int  # 1 or 2
    prompt_name: str
    system: str
    text: str
    order: Literal["single", "ab", "ba"] = "single"

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the request as chat messages."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.text}]

    def key(self, settings: JudgeSettings) -> str:
        """Return a hash of everything that can move the verdict: what was judged under it need not be asked again."""
        where = [self.question.question_id, self.turn, self.order]
        parts = [where, self.messages, settings.model, settings.temperature, settings.max_tokens]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def load_questions(file: Path, references: Path | None = None) -> list[Question]:
    """Return the questions of a file in FastChat's form, or of preference rows (column `prompt`; idx or line number).

    Answers of the file `references`, if there is one, become the questions' reference answers.
    Raises ValueError naming file and line for a row of neither form, and for a repeated question.
    """
    known = load_answers(references) if references and references.is_file() else {}
    questions: dict[int, Question] = {}
    for number, row in _rows(file):
        try:
            question = _question(row, number, known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}, line {number}: a question needs question_id, category, turns ({error})"
            ) from error
        if question.question_id in questions:
            raise ValueError(f"{file}, line {number}: question_id {question.question_id} is there twice")
        questions[question.question_id] = question
    if not questions:
        raise ValueError(f"{file}: no questions")
    return list(questions.values())


def _question(row: Mapping[str, Any], number: int, references: Mapping[int, Turns]) -> Question:
    if "prompt" in row:
        return Question(int(row.get("idx", number)), "preference", (str(row["prompt"]),))
    question_id, turns = int(row["question_id"]), row["turns"]
    if not isinstance(turns, list) or len(turns) not in (1, 2):
        raise ValueError("turns must be a list of one or two texts")
    return Question(question_id, str(row["category"]), tuple(map(str, turns)), tuple(references.get(question_id, ())))


def load_answers(file: Path) -> dict[int, Turns]:
    """Return question_id -> answers by turn, of a file in FastChat's form. Raises ValueError naming file and line."""
    answers: dict[int, Turns] = {}
    for number, row in _rows(file):
        try:
            answers[int(row["question_id"])] = tuple(map(str, row["choices"][0]["turns"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, line {number}: an answer needs question_id and choices ({error})") from error
    return answers


def load_prompts(file: Path) -> dict[str, Mapping[str, str]]:
    """Return FastChat's judge prompts by name. Raises ValueError when one of the eight is missing."""
    prompts = {str(row.get("name")): row for _, row in _rows(file)}
    missing = [name for name in PROMPT_NAMES if not {"system_prompt", "prompt_template"} <= set(prompts.get(name, {}))]
    if missing:
        raise ValueError(f"{file}: no judge prompt {', '.join(missing)}")
    return prompts


def _rows(file: Path) -> list[tuple[int, Any]]:
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    return list(read_lines(file))


def single_requests(
    questions: Sequence[Question], answers: Mapping[int, Turns], prompts: Mapping[str, Mapping[str, str]]
) -> list[Request]:
    """Return one request for each turn of each question: grade this answer. Raises ValueError for missing answers."""
    _check_answers(questions, answers)
    requests: list[Request] = []
    for question in questions:
        mine = answers[question.question_id]
        fields = {"question": question.turns[0], "answer": mine[0]}
        fields |= {f"answer_{turn}": text for turn, text in enumerate(mine, 1)}
        requests += [_request(question, turn, "single", prompts, fields) for turn in range(1, len(question.turns) + 1)]
    return requests


def pair_requests(
    questions: Sequence[Question],
    answers: tuple[Mapping[int, Turns], Mapping[int, Turns]],
    prompts: Mapping[str, Mapping[str, str]],
) -> list[Request]:
    """Return two requests for each turn of each question, the second with the answers' places swapped.

    Raises ValueError for missing answers.
    """
    requests: list[Request] = []
    for side in answers:
        _check_answers(questions, side)
    for question in questions:
        first, second = (side[question.question_id] for side in answers)
        for turn in range(1, len(question.turns) + 1):
            for order, (a, b) in {"ab": (first, second), "ba": (second, first)}.items():
                fields = {"question": question.turns[0], "answer_a": a[0], "answer_b": b[0]}
                fields |= {f"answer_a_{place}": text for place, text in enumerate(a, 1)}
                fields |= {f"answer_b_{place}": text for place, text in enumerate(b, 1)}
                requests.append(_request(question, turn, "pair", prompts, fields, order))
    return requests


def _request(
    question: Question,
    turn: int,
    kind: str,
    prompts: Mapping[str, Mapping[str, str]],
    fields: dict[str, str],
    order: Any = "single",
) -> Request:
    with_reference = question.category in WITH_REFERENCE
    if with_reference and len(question.reference) < len(question.turns):
        raise ValueError(
            f"question {question.question_id} ({question.category}) is judged against a reference: none given"
        )
    version = {"single": "single-v1", "pair": "pair-v2"}[kind] if not with_reference else f"{kind}-math-v1"
    name = version if turn == 1 else f"{version}-multi-turn"
    fields |= {f"question_{place}": text for place, text in enumerate(question.turns, 1)}
    fields |= {f"ref_answer_{place}": text for place, text in enumerate(question.reference, 1)}
    template = prompts[name]
    return Request(question, turn, name, template["system_prompt"], template["prompt_template"].format(**fields), order)


def _check_answers(questions: Sequence[Question], answers: Mapping[int, Turns]) -> None:
    missing = [q.question_id for q in questions if len(answers.get(q.question_id, ())) < len(q.turns)]
    if missing:
        shown = ", ".join(map(str, missing[:10]))
        raise ValueError(f"no answer (or too few turns) to {len(missing)} of {len(questions)} questions: {shown}")
