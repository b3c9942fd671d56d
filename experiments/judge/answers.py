"""A model's answers to MT-Bench's questions, turn after turn, kept in FastChat's form as they are made."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.generation import Generation, write
from experiments.judge.journal import Journal
from experiments.judge.prompts import Question
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import read_mapping, read_value
from lorta.records.canonical import canonical_json

if TYPE_CHECKING:
    from torch import nn


COUNTED = {  # of the turns of a question, in the rows of a file of answers
    "cut_prompts": "prompts were longer than {tokens} tokens and lost their beginning",
    "cut_answers": "answers were not finished after {new} tokens",
    "empty_answers": "answers are empty",
}


@dataclass(frozen=True)
class AnswerSettings:
    """`conf/mt_bench/NAME.yaml`. `first` and `later` hold {question}; null means the tokenizer's chat template."""

    first: str | None
    later: str | None
    generation: Mapping[str, Any]
    temperatures: Mapping[str, float]  # by category, in the place of generation.temperature
    max_length: int  # tokens of a prompt; the beginning of longer ones is cut, but for the begin-of-text token


def template_of(task: Mapping[str, Any]) -> str:
    """Return the template that asks as a run's task did: chat where its prompts were chats, else alpaca."""
    return "chat" if task.get("template") == "chat" else "alpaca"


def answer_settings(name: str, folder: Path, words: Sequence[str] = ()) -> AnswerSettings:
    """Return the settings of a template, changed by words such as `mt_bench.generation.batch_size=16`.

    Raises ValueError for an unknown name or key, and for impossible values.
    """
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"template {name}: there are {', '.join(names)}")
    values = read_mapping(folder / f"{name}.yaml")
    for word in words:
        key = word.partition("=")[0]
        _, *path, last = key.split(".")
        node = values
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or (last not in node and path != ["temperatures"]):
            raise ValueError(f"{key}: no such key{did_you_mean(key, [f'mt_bench.{known}' for known in values])}")
        node[last] = read_value(word)
    Generation(**values["generation"])
    return AnswerSettings(**values)


def dialogue(settings: AnswerSettings, tokenizer: Any, turns: Sequence[str], replies: Sequence[str]) -> list[int]:
    """Return the tokens that ask the turn after `replies`. Raises ValueError where a chat template is missing."""
    return _cut(_whole_dialogue(settings, tokenizer, turns, replies), settings, tokenizer)


def _whole_dialogue(
    settings: AnswerSettings, tokenizer: Any, turns: Sequence[str], replies: Sequence[str]
) -> list[int]:
    asked = turns[: len(replies) + 1]
    if settings.first is None or settings.later is None:
        if not tokenizer.chat_template:
            raise ValueError("this model's tokenizer has no chat template: choose another, such as alpaca")
        parts = [part for pair in zip(asked, replies, strict=False) for part in pair] + [asked[-1]]
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(parts)]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    else:
        text = settings.first.format(question=asked[0])
        for answer, question in zip(replies, asked[1:], strict=True):
            text += answer + settings.later.format(question=question)
        ids = list(tokenizer(text)["input_ids"])
        ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    return ids


def _cut(ids: list[int], settings: AnswerSettings, tokenizer: Any) -> list[int]:
    """Return the last tokens of a prompt that is too long, and its begin-of-text token."""
    begin = int(ids[0] == tokenizer.bos_token_id)
    return ids if len(ids) <= settings.max_length else ids[:begin] + ids[begin - settings.max_length :]


def answer_all(
    model: "nn.Module",
    tokenizer: Any,
    questions: Sequence[Question],
    settings: AnswerSettings,
    file: Path,
    model_id: str,
    seed: int = 0,
) -> int:
    """Write an answer to every question that has none in `file`; return how many were written.

    Batches hold questions of one temperature and one number of turns, and each is on the disk when the next begins.
    Raises ValueError when the file holds answers of another model, other settings or another text.
    """
    journal = Journal(file)
    keys = {_key(question, settings, model_id, seed): question for question in questions}
    strange = len(set(journal.rows) - set(keys))
    if strange:
        raise ValueError(f"{file} holds {strange} answers of another model, or to other questions: choose another file")
    groups: dict[tuple[float, int], list[str]] = {}
    for key, question in keys.items():
        if key not in journal.rows:
            groups.setdefault((_generation(question, settings).temperature, len(question.turns)), []).append(key)
    for waiting in groups.values():
        size = _generation(keys[waiting[0]], settings).batch_size
        for start in range(0, len(waiting), size):
            chosen = waiting[start : start + size]
            turns = _batch(model, tokenizer, [keys[key] for key in chosen], settings, seed)
            for key, (answers, counts) in zip(chosen, turns, strict=True):
                row = _row(key, keys[key], answers, settings, model_id)
                journal.append(row | {name: count for name, count in counts.items() if count})
    return sum(map(len, groups.values()))


def _key(question: Question, settings: AnswerSettings, model_id: str, seed: int) -> str:
    how = {key: value for key, value in vars(settings).items() if key != "generation"}
    parts = [question.question_id, question.turns, model_id, vars(_generation(question, settings)), how, seed]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def _generation(question: Question, settings: AnswerSettings) -> Generation:
    usual = Generation(**settings.generation)
    return replace(usual, temperature=settings.temperatures.get(question.category, usual.temperature))


def _batch(
    model: "nn.Module", tokenizer: Any, questions: Sequence[Question], settings: AnswerSettings, seed: int
) -> list[tuple[list[str], Counter[str]]]:
    """Return the answers to each question's turns, and how many times each of COUNTED was so."""
    answers: list[list[str]] = [[] for _ in questions]
    counts = [Counter[str]() for _ in questions]
    how = _generation(questions[0], settings)
    for _ in questions[0].turns:
        pairs = zip(questions, answers, strict=True)
        whole = [_whole_dialogue(settings, tokenizer, question.turns, said) for question, said in pairs]
        prompts = [_cut(ids, settings, tokenizer) for ids in whole]
        written = write(model, tokenizer, prompts, how, seed=seed)
        for said, count, ids, one in zip(answers, counts, whole, written, strict=True):
            said.append(one.text.strip())
            count["cut_prompts"] += len(ids) > settings.max_length
            count["cut_answers"] += not one.stopped
            count["empty_answers"] += not said[-1]
    return list(zip(answers, counts, strict=True))


def what_is_missing(file: Path, settings: AnswerSettings) -> list[str]:
    """Return a sentence for each of COUNTED that some answers of a file have."""
    sums = {name: sum(row.get(name, 0) for row in Journal(file).rows.values()) for name in COUNTED}
    limits = {"tokens": settings.max_length, "new": settings.generation["max_new_tokens"]}
    return [f"{number} {COUNTED[name].format(**limits)}" for name, number in sums.items() if number]


def beyond_positions(settings: AnswerSettings, config: Any) -> str | None:
    """Return a sentence where prompt and answer together can be longer than a model's configuration has positions."""
    new, most = settings.generation["max_new_tokens"], getattr(config, "max_position_embeddings", None)
    if most is None or settings.max_length + new <= most:
        return None
    return (
        f"prompt and answer can be {settings.max_length + new:,} tokens, and the model's positions were trained for "
        f"{most:,}: set mt_bench.max_length and mt_bench.generation.max_new_tokens"
    )


def _row(key: str, question: Question, answers: list[str], settings: AnswerSettings, model_id: str) -> dict[str, Any]:
    return {
        "key": key,
        "question_id": question.question_id,
        "category": question.category,
        "model_id": model_id,
        "choices": [{"index": 0, "turns": answers}],
        "generate_params": dict(vars(_generation(question, settings))),
    }
