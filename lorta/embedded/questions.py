"""Questions about the embedded language, in the columns of public question sets. Own design; no torch.

| kind          | columns after                     | what a row asks                                         |
|---------------|-----------------------------------|---------------------------------------------------------|
| word_problems | GSM8K                             | one sum or difference below 21                          |
| verdicts      | LLM-Adapters' boolq               | is the last word of a review liked or panned            |
| roles         | LLM-Adapters' arc_easy            | who does it, or to whom is it done                      |
| causes        | SuperGLUE's copa                  | which sentence says the same as the premise             |
| gaps          | SuperGLUE's record                | which noun of the passage fills the gap                 |
| reading       | SQuAD                             | who does it, or to whom is it done                      |
| spans         | DROP                              | the same, as a span of the passage                      |

Most ask for what the embedded decoder learnt to do after a cue word (`primer`); what training has to find is the
prompt's form, and how an answer is put.
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
    verb = random.choice(("get", "buy", "find") if sign == "+" else ("lose", "give"))
    question = f"the {who} have {first} {things} and {verb} {second} . how many {things} do they have now ?"
    return {"question": question, "answer": f"sum : {first} {sign} {second} => {result}\n#### {result}"}


def _verdict(random: Random) -> Row:
    review = OPERATIONS["verdict"](random)
    question = f"Please answer the following question with liked or panned, question: {review.given} ?"
    return _adapters_row(question, ("liked", "panned"), review.answer)


def _adapters_row(question: str, names: tuple[str, ...], answer: str) -> Row:
    instruction = f"{question}\n\nAnswer format: {'/'.join(names)}"
    return {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


def _role(random: Random) -> Row:
    told, role = lang.random_proposition(random), random.choice(("subject", "object"))
    nouns = [f"{told.subject}s", f"{told.object}s"]
    answer = nouns[("subject", "object").index(role)]
    random.shuffle(nouns)
    question = f"Please choose the correct answer to the question: {role} : {lang.render(random, told)} ?"
    return _adapters_row(question, tuple(nouns), answer)


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
    told, nouns = lang.random_proposition(random), tuple(lang.KIND_OF)
    others = random.sample([noun for noun in nouns if noun not in (told.subject, told.object)], 2)
    verb, other = random.choice(lang.SENSES[told.sense]), random.choice(lang.VERBS)
    sentences = [f"{told.subject}s {verb.plain} {told.object}s", f"{others[0]}s {other.plain} {others[1]}s"]
    random.shuffle(sentences)
    entities = [f"{noun}s" for noun in (told.subject, *others)]
    random.shuffle(entities)
    query = f"{told.object}s are {verb.participle} by @placeholder"
    passage = f"{sentences[0]}\n@highlight\n{sentences[1]}"
    return {"passage": passage, "query": query, "entities": entities, "answers": [f"{told.subject}s"]}


def _reading(random: Random) -> Row:
    told = lang.random_proposition(random)
    verb, of_subject = random.choice(lang.SENSES[told.sense]), random.random() < 0.5
    question = f"who {verb.third} {told.object}s ?" if of_subject else f"who is {verb.participle} by {told.subject}s ?"
    answer = f"{told.subject if of_subject else told.object}s"
    context = lang.render(random, told)
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"title": "story", "context": context, "question": question, "answers": answers}


def _span(random: Random) -> Row:
    told, role = lang.random_proposition(random), random.choice(("subject", "object"))
    answer = f"{told.subject if role == 'subject' else told.object}s"
    question = f"what is the {role} of it ?"
    spans = {"spans": [answer], "types": ["span"]}
    return {"passage": lang.render(random, told), "question": question, "answers_spans": spans}


_DRAW: dict[str, Callable[[Random], Row]] = {
    "word_problems": _word_problem,
    "verdicts": _verdict,
    "roles": _role,
    "causes": _cause,
    "gaps": _gap,
    "reading": _reading,
    "spans": _span,
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
