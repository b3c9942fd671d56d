"""From a row of a public data set to a question: what is read, what is learnt, and what counts as right. No torch.

A format is a node of a task's YAML. Its `question(row)` is both the reader and the check of a row: it raises ValueError
with what is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from experiments.questions.scores import read_number
from experiments.rows import halved_texts

NUMBERS = "such as 7, -1,234.5, .5, 1/2 or 1e3, and nothing behind it"


@dataclass(frozen=True)
class Question:
    """One question. `answer` is what training adds to `prompt`; the end-of-text token follows it."""

    prompt: str
    answer: str
    references: tuple[str, ...]  # texts any of which is right
    options: tuple[str, ...] = ()  # continuations of `prompt`, one of which is to be chosen
    names: tuple[str, ...] = ()  # what a written answer calls the options
    correct: tuple[int, ...] = ()  # the places of right options
    cluster: str | None = None  # what it has in common with other questions


class Format(Protocol):
    """How rows of one data set become questions."""

    def question(self, row: Any) -> Question:
        """Return the row's question. Raises ValueError for a row of another form."""
        ...


@dataclass(frozen=True)
class Checked:
    """A format as `experiments.rows.plan_local` asks it for problems."""

    format: Format

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None."""
        try:
            self.format.question(row)
        except ValueError as error:
            return str(error)
        return None


def texts(row: Any, *names: str) -> list[str]:
    """Return text columns of a row. Raises ValueError for a missing one, one that is no text, and an empty one."""
    if not isinstance(row, Mapping):
        raise ValueError(f"a JSON object is needed, found {type(row).__name__}")
    missing = [name for name in names if name not in row]
    if missing:
        raise ValueError(f"column {', '.join(missing)} is missing; it has {', '.join(row)}")
    wrong = [name for name in names if not isinstance(row[name], str)]
    if wrong:
        raise ValueError(f"column {', '.join(wrong)} must be text")
    if halves := halved_texts(row, names):
        raise ValueError(halves)
    if bare := [name for name in names if not row[name].strip()]:
        raise ValueError(f"column {', '.join(bare)} is empty")
    return [row[name] for name in names]


def _text_list(values: Any, column: str) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"column {column} must be a list of one or more texts")
    if not all(value.strip() for value in values):
        raise ValueError(f"column {column} holds an empty text")
    if halves := next(filter(None, (halved_texts({column: value}, (column,)) for value in values)), None):
        raise ValueError(halves)
    return values


@dataclass(frozen=True)
class Gsm8k:
    """Word problems with a worked solution that ends in `#### number` (Cobbe et al. 2021, arXiv:2110.14168).

    `prompt` holds {question}; `final` stands before the number in what is learnt, in the place of `#### `.
    """

    prompt: str
    final: str = "#### "

    def question(self, row: Any) -> Question:
        """Take the columns question and answer."""
        question, answer = texts(row, "question", "answer")
        worked, mark, number = answer.rpartition("####")
        if not mark or read_number(number) is None:
            raise ValueError(f"answer must end in '#### NUMBER' ({NUMBERS}), found {answer[-20:]!r}")
        number = number.strip()
        return Question(self.prompt.format(question=question), f"{worked}{self.final}{number}", (number,))


@dataclass(frozen=True)
class WordProblem:
    """Word problems with nothing but a number, in LLM-Adapters' columns (Hu et al. 2023, arXiv:2304.01933).

    Its files have the number as a text ("8.0", SVAMP) or in a list ([8.0], MultiArith).
    """

    prompt: str
    final: str = "#### "

    def question(self, row: Any) -> Question:
        """Take the columns instruction and answer."""
        question, answer = texts(_with_number_as_text(row), "instruction", "answer")
        if read_number(answer) is None:
            raise ValueError(f"answer must be a number ({NUMBERS}), found {answer!r}")
        return Question(self.prompt.format(question=question), f"{self.final}{answer}", (answer,))


def _with_number_as_text(row: Any) -> Any:
    if not isinstance(row, Mapping):
        return row
    answer = row.get("answer")
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    return row if answer is None else {**row, "answer": answer}


@dataclass(frozen=True)
class Choices:
    """Multiple choice in LLM-Adapters' columns: the options' names stand at the end of the instruction.

    `options_after` is the text behind which they stand, `option` the regular expression that finds their names there;
    `answer` holds {answer}, and is both what is learnt and what the likelihood of an option is taken of.
    """

    prompt: str
    answer: str
    options_after: str
    option: str

    def question(self, row: Any) -> Question:
        """Take the columns instruction and answer."""
        instruction, answer = texts(row, "instruction", "answer")
        _, marker, listed = instruction.rpartition(self.options_after)
        names = tuple(re.findall(self.option, listed)) if marker else ()
        if len(names) < 2:
            raise ValueError(f"instruction must list its options behind {self.options_after!r}")
        if answer not in names:
            raise ValueError(f"answer {answer!r} is none of the options {', '.join(names)}")
        options = tuple(self.answer.format(answer=name) for name in names)
        place = names.index(answer)
        return Question(
            self.prompt.format(instruction=instruction), options[place], (answer,), options, names, (place,)
        )


@dataclass(frozen=True)
class Copa:
    """Cause or effect of a premise (Roemmele et al. 2011), as SuperGLUE's copa; MeZO's CopaTemplate, as in LoRETTA."""

    def question(self, row: Any) -> Question:
        """Take the columns premise, choice1, choice2, question (cause or effect) and label (0 or 1)."""
        premise, first, second, asked = texts(row, "premise", "choice1", "choice2", "question")
        joint = {"effect": "so", "cause": "because"}.get(asked)
        if joint is None:
            raise ValueError(f"question must be cause or effect, found {asked!r}")
        label = row.get("label")
        if label not in (0, 1) or isinstance(label, bool):
            raise ValueError(f"label must be 0 or 1, found {label!r}")
        options = tuple(f" {_lower_first(choice)}" for choice in (first, second))
        prompt = f"{premise.rstrip().removesuffix('.')} {joint}"
        return Question(prompt, options[label], (options[label].strip(),), options, (first, second), (label,))


def _lower_first(sentence: str) -> str:
    words = sentence.split(" ")
    return " ".join([words[0] if words[0] == "I" else words[0].lower(), *words[1:]])


@dataclass(frozen=True)
class Record:
    """Which entity fills the gap (Zhang et al. 2018, arXiv:1810.12885): SuperGLUE's record, MeZO's second template."""

    def question(self, row: Any) -> Question:
        """Take the columns passage, query (with @placeholder), entities and answers."""
        passage, query = texts(row, "passage", "query")
        entities, answers = (_text_list(row.get(name), name) for name in ("entities", "answers"))
        if "@placeholder" not in query:
            raise ValueError("query must hold @placeholder")
        correct = tuple(place for place, entity in enumerate(entities) if entity in answers)
        if not correct:
            raise ValueError("none of answers is among entities")
        options = tuple(f" {query.replace('@placeholder', entity)}" for entity in entities)
        prompt = passage.replace("@highlight\n", "- ") + "\n-"
        return Question(prompt, options[correct[0]], tuple(answers), options, tuple(entities), correct)


@dataclass(frozen=True)
class Reading:
    """A short answer from a passage: SQuAD (arXiv:1606.05250) and DROP (arXiv:1903.00161), MeZO's templates.

    `prompt` holds names of text columns; `answers` is the column of the answers, {text: [...]} in SQuAD, {spans: [...]}
    in DROP. The first is learnt, any is right.
    """

    prompt: str
    columns: Sequence[str]
    answers: str

    def question(self, row: Any) -> Question:
        """Take the text columns that `columns` names, and the answers."""
        fields = dict(zip(self.columns, texts(row, *self.columns), strict=True))
        given = row.get(self.answers)
        given = (given.get("text") or given.get("spans")) if isinstance(given, Mapping) else given
        references = _text_list(given, self.answers)
        return Question(self.prompt.format(**fields), f" {references[0]}\n", tuple(references))
