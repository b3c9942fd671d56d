"""Questions about the embedded language, in the columns of public question sets. Own design; no torch.

| kind          | columns after                     | what a row asks                                         |
|---------------|-----------------------------------|---------------------------------------------------------|
| word_problems | GSM8K                             | one sum or difference below 21, worked out              |
| yes_no        | LLM-Adapters' boolq               | is this what the sentence says (voice, synonym, roles)  |
| choices       | LLM-Adapters' arc_easy            | which of four words is the kind of this one             |
| causes        | SuperGLUE's copa                  | which sentence says the same as the premise             |
| gaps          | SuperGLUE's record                | which noun of the passage fills the gap                 |
| reading       | SQuAD                             | who does it, or to whom is it done                      |
| counting      | DROP                              | how many, from a passage of two numbers                 |

Worked sums and yes-or-no questions are written as in the embedded decoder's pre-training text (`primer`), with cue word
and `=>`: what training has to find is the prompt's form, and how an answer is put.
"""

import json
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from lorta.embedded import language as lang
from lorta.embedded.operations import LARGEST_NUMBER, OPERATIONS
from lorta.embedded.tasks import FINGERPRINTS

QUESTIONS_REVISION = "1"  # raised whenever a row changes
SIZES = {"train": 1000, "validation": 200}
THINGS = ("apples", "books", "coins", "eggs")
Row = dict[str, Any]


def _change(random: Random) -> tuple[int, int, int, str]:
    """Draw a number, a change, the result (all at most LARGEST_NUMBER) and the sign of the change."""
    total = random.randint(1, LARGEST_NUMBER)
    first = random.randint(0, total)
    return random.choice(((first, total - first, total, "+"), (total, first, total - first, "-")))


def _word_problem(random: Random) -> Row:
    first, second, result, sign = _change(random)
    who, things = f"{random.choice(tuple(lang.KIND_OF))}s", random.choice(THINGS)
    question = f"the {who} have {first} {sign} {second} {things} . sum : {first} {sign} {second} => how many ?"
    return {"question": question, "answer": f"{result} {things}\n#### {result}"}


def _yes_no(random: Random) -> Row:
    told = OPERATIONS["truth"](random)
    question = f"Please answer the following question with yes or no, question: truth : {told.given} =>"
    return _adapters_row(question, ("yes", "no"), told.answer)


def _adapters_row(question: str, names: tuple[str, ...], answer: str) -> Row:
    instruction = f"{question}\n\nAnswer format: {'/'.join(names)}"
    return {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


def _choice(random: Random) -> Row:
    noun = random.choice(tuple(lang.KIND_OF))
    kinds = random.sample(tuple(lang.KINDS), 4)
    shown = " ".join(f"Answer{place}: {kind}" for place, kind in enumerate(kinds, 1))
    told = lang.render(random, lang.random_proposition(random))
    question = f"Please choose the correct answer to the question: {told} . what kind is {noun} ?\n\n{shown}"
    names = tuple(f"answer{place}" for place in range(1, 5))
    return _adapters_row(question, names, names[kinds.index(lang.KIND_OF[noun])])


def _cause(random: Random) -> Row:
    told = lang.random_proposition(random)
    choices = [lang.render(random, told), lang.render(random, lang.change_one(random, told))]
    label = random.randrange(2)
    premise = f"{lang.render(random, told)}."
    asked = random.choice(("cause", "effect"))
    return {
        "premise": premise,
        "choice1": choices[label],
        "choice2": choices[1 - label],
        "question": asked,
        "label": label,
    }


def _gap(random: Random) -> Row:
    told = lang.random_proposition(random)
    bystander = lang.another(random, tuple(lang.KIND_OF), told.subject, told.object)
    other = lang.Proposition(bystander, lang.another(random, range(len(lang.SENSES)), told.sense), told.object)
    sentences = [lang.render(random, told), lang.render(random, other)]
    random.shuffle(sentences)
    verb = random.choice(lang.SENSES[told.sense])
    entities = [f"{noun}s" for noun in (told.subject, told.object, bystander)]
    random.shuffle(entities)
    passage = f"{sentences[0]}\n@highlight\n{sentences[1]}"
    query = f"{told.object}s are {verb.participle} by @placeholder"
    return {"passage": passage, "query": query, "entities": entities, "answers": [f"{told.subject}s"]}


def _reading(random: Random) -> Row:
    told = lang.random_proposition(random)
    verb, of_subject = random.choice(lang.SENSES[told.sense]), random.random() < 0.5
    question = f"who {verb.third} {told.object}s ?" if of_subject else f"who is {verb.participle} by {told.subject}s ?"
    answer = f"{told.subject if of_subject else told.object}s"
    context = lang.render(random, told)
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"title": "story", "context": context, "question": question, "answers": answers}


def _counting(random: Random) -> Row:
    first, second, result, sign = _change(random)
    who, things = f"{random.choice(tuple(lang.KIND_OF))}s", random.choice(THINGS)
    passage = f"the {who} have {first} {things} . then they {'get' if sign == '+' else 'lose'} {second} ."
    question = f"how many {things} do the {who} have now ?"
    return {"passage": passage, "question": question, "answers_spans": {"spans": [str(result)], "types": ["number"]}}


_DRAW: dict[str, Callable[[Random], Row]] = {
    "word_problems": _word_problem,
    "yes_no": _yes_no,
    "choices": _choice,
    "causes": _cause,
    "gaps": _gap,
    "reading": _reading,
    "counting": _counting,
}
QUESTION_KINDS = tuple(_DRAW)


@cache
def _splits(kind: str) -> dict[str, list[Row]]:
    """Draw both splits, the held-out one first; no row occurs twice."""
    random, seen, splits = Random(f"{kind} {QUESTIONS_REVISION}"), set[str](), dict[str, list[Row]]()
    for split, size in reversed(SIZES.items()):
        rows: list[Row] = []
        while len(rows) < size:
            row = _DRAW[kind](random)
            text = json.dumps(row)
            if text not in seen:
                seen.add(text)
                rows.append({**row, "idx": len(rows)})
        splits[split] = rows
    return splits


def question_rows(kind: str, split: str) -> list[Row]:
    """Return the rows of a split, `idx` included. Raises ValueError for an unknown kind or split."""
    _check(kind, split)
    return [dict(row) for row in _splits(kind)[split]]


def question_fingerprint(kind: str, split: str) -> str:
    """Return the committed SHA-256 of a split without drawing it. Raises ValueError for an unknown kind or split."""
    _check(kind, split)
    return json.loads(FINGERPRINTS.read_text(encoding="utf-8"))[kind][split]


def _check(kind: str, split: str) -> None:
    for what, value, known in (("kind", kind, QUESTION_KINDS), ("split", split, tuple(SIZES))):
        if value not in known:
            raise ValueError(f"The embedded questions have no {what} {value!r}; choose one of {', '.join(known)}.")
