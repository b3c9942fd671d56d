"""Six tasks in the embedded language, in the columns and label types of GLUE (Wang et al. 2019). Own design; no torch.

| task | what a row asks                             | what a bag of words does not show                   |
|------|---------------------------------------------|-----------------------------------------------------|
| cola | is the sentence grammatical                 | agreement across a prepositional phrase, word order |
| sst2 | is the speaker's last word praise or blame  | negation, and which of two clauses counts           |
| mrpc | do the sentences mean the same              | passive voice, synonyms, swapped roles              |
| rte  | does the second sentence follow             | kinds of nouns, swapped roles, the direction        |
| qnli | does the sentence answer the question       | passive voice, synonyms, swapped roles              |
| stsb | how much of the meaning is shared, 0 to 5   | a sum over roles, whole words or kinds              |
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from lorta.embedded import language as lang

EMBEDDED_REVISION = "1"  # raised whenever a row changes
SIZES = {"train": 1000, "validation": 500}
FINGERPRINTS = Path(__file__).with_name("fingerprints.json")


def acceptability(random: Random) -> tuple[tuple[str], int]:
    """Draw (sentence,) and 1 if it is grammatical; the faults are agreement, a demonstrative, or word order."""
    subject, attractor, target = random.sample(lang.NOUNS, 3)
    verb, plural = random.choice(lang.VERBS), random.random() < 0.5
    acceptable = random.random() < 0.5
    fault = None if acceptable else random.choice(("agreement", "agreement", "demonstrative", "order"))
    words = ["these" if plural else "this"] if fault == "demonstrative" or random.random() < 0.5 else ["the"]
    if fault == "demonstrative":
        words = ["this" if plural else "these"]
    words.append(subject.plural if plural else subject.singular)
    if random.random() < 0.5:
        words += [random.choice(lang.PREPOSITIONS), "the", random.choice(attractor)]
    third = plural if fault == "agreement" else not plural
    words += [verb.third if third else verb.plain, "the", random.choice(target)]
    if fault == "order":
        swapped = random.choice((0, len(words) - 3))
        words[swapped], words[swapped + 1] = words[swapped + 1], words[swapped]
    return (" ".join(words),), int(acceptable)


def review(random: Random, clauses: int = 2) -> tuple[tuple[str], int]:
    """Draw (sentence,) and 1 for praise: `but` gives the last clause the say, `although` the first."""
    said, praises = [], []
    for topic in random.sample(lang.TOPICS, clauses):
        praise, negated = random.random() < 0.5, random.random() < 0.3
        manner = "not" if negated else random.choice(lang.ADVERBS)
        said.append(f"the {topic} is {manner} {random.choice(lang.PRAISE if praise else lang.BLAME)}")
        praises.append(praise != negated)
    joint = random.choice(("but", "although"))
    return (f" {joint} ".join(said),), int(praises[-1 if joint == "but" else 0])


def paraphrase(random: Random) -> tuple[lang.Proposition, lang.Proposition]:
    """Draw two propositions, the same one with probability 1/2."""
    first = lang.random_proposition(random)
    return first, first if random.random() < 0.5 else lang.change_one(random, first)


def inference(random: Random) -> tuple[lang.Proposition, lang.Proposition]:
    """Draw premise and hypothesis; the hypothesis follows with probability 1/2, or is too special, or differs."""
    premise = lang.random_proposition(random)
    if random.random() < 0.5:
        return premise, lang.generalise(random, premise)
    if random.random() < 0.3:
        return lang.generalise(random, premise), premise
    hypothesis = premise
    while lang.follows(premise, hypothesis):  # another noun of the same kind, generalised, follows again
        hypothesis = lang.change_one(random, premise)
        if random.random() < 0.7:
            hypothesis = lang.generalise(random, hypothesis)
    return premise, hypothesis


def similarity(random: Random) -> tuple[lang.Proposition, lang.Proposition]:
    """Draw two propositions that share some of their meaning."""
    first = lang.random_proposition(random)
    second = [first.subject, first.object]
    for place in (0, 1):
        draw = random.random()
        if draw < 0.6:
            mates = lang.KINDS[lang.KIND_OF[second[place]]] if draw < 0.25 else tuple(lang.KIND_OF)
            second[place] = lang.another(random, mates, *second)
    if random.random() < 0.15:
        second.reverse()
    sense = first.sense if random.random() < 0.5 else random.randrange(len(lang.SENSES))
    return first, lang.Proposition(second[0], sense, second[1])


def question(random: Random) -> tuple[tuple[str, str], int]:
    """Draw (question, sentence) and 0 if the sentence answers the question, 1 if not (GLUE's entailment is 0)."""
    asked, of_subject = lang.random_proposition(random), random.random() < 0.5
    verb, told, label = random.choice(lang.SENSES[asked.sense]), asked, int(random.random() < 0.5)
    while label and _answers(told, asked, of_subject):
        told = lang.change_one(random, asked)
    words = f"who {verb.third} {asked.object}s" if of_subject else f"who is {verb.participle} by {asked.subject}s"
    return (words, lang.render(random, told)), label


def _answers(told: lang.Proposition, asked: lang.Proposition, of_subject: bool) -> bool:
    known = told.object == asked.object if of_subject else told.subject == asked.subject
    return known and told.sense == asked.sense


def render_pair(random: Random, pair: tuple[lang.Proposition, lang.Proposition]) -> tuple[str, str]:
    """Say both propositions, each in its own words."""
    return lang.render(random, pair[0]), lang.render(random, pair[1])


def _mrpc(random: Random) -> tuple[tuple[str, ...], float]:
    pair = paraphrase(random)
    return render_pair(random, pair), int(pair[0] == pair[1])


def _rte(random: Random) -> tuple[tuple[str, ...], float]:
    pair = inference(random)
    return render_pair(random, pair), int(not lang.follows(*pair))


def _stsb(random: Random) -> tuple[tuple[str, ...], float]:
    pair = similarity(random)
    return render_pair(random, pair), float(lang.overlap(*pair))


_PAIR = ("sentence1", "sentence2")
_TASKS: dict[str, tuple[tuple[str, ...], Callable[[Random], tuple[tuple[str, ...], float]]]] = {
    "sst2": (("sentence",), review),
    "mrpc": (_PAIR, _mrpc),
    "cola": (("sentence",), acceptability),
    "qnli": (("question", "sentence"), question),
    "rte": (_PAIR, _rte),
    "stsb": (_PAIR, _stsb),
}
EMBEDDED_TASKS = tuple(_TASKS)


@cache
def _splits(task: str) -> dict[str, list[dict[str, Any]]]:
    """Draw all splits of a task; no text occurs twice."""
    columns, draw = _TASKS[task]
    random, seen, splits = Random(f"{task} {EMBEDDED_REVISION}"), set(), {}
    for split, size in SIZES.items():
        rows: list[dict[str, Any]] = []
        while len(rows) < size:
            texts, label = draw(random)
            if texts not in seen:
                seen.add(texts)
                rows.append({**dict(zip(columns, texts, strict=True)), "label": label, "idx": len(rows)})
        splits[split] = rows
    return splits


def _check(task: str, split: str) -> None:
    for what, value, known in (("task", task, EMBEDDED_TASKS), ("split", split, tuple(SIZES))):
        if value not in known:
            raise ValueError(f"The embedded data has no {what} {value!r}; choose one of {', '.join(known)}.")


def embedded_rows(task: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of one split, label and `idx` included.

    Raises ValueError for a task outside EMBEDDED_TASKS or a split other than train and validation.
    """
    _check(task, split)
    return [dict(row) for row in _splits(task)[split]]


def rows_fingerprint(rows: list[dict[str, Any]]) -> str:
    """Return the SHA-256 (hex) of rows as compact JSON with sorted keys, one per line."""
    lines = (json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def embedded_fingerprint(task: str, split: str) -> str:
    """Return the committed SHA-256 (hex) of a split without drawing it; a test compares the two.

    Raises ValueError for a task outside EMBEDDED_TASKS or a split other than train and validation.
    """
    _check(task, split)
    return json.loads(FINGERPRINTS.read_text(encoding="utf-8"))[task][split]
