"""What the embedded language can be asked to do: each operation takes a text and has one right answer. No torch.

Own design. The embedded decoder is pre-trained to carry them out after a cue word (`primer`); instructions ask for the
same in sentences that it never saw (`instructions`), and preferences put a wrong answer beside the right one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lorta.embedded import language as lang
from lorta.embedded import tasks

LARGEST_NUMBER = 20
NUMBERS = tuple(str(number) for number in range(LARGEST_NUMBER + 1))


@dataclass(frozen=True)
class Exercise:
    """A given text, the right answer, and wrong ones that a reader of few words would take for right."""

    given: str
    answer: str
    wrong: tuple[str, ...]


def _say(subject: str, sense: int, target: str, verb: int = 0, passive: bool = False) -> str:
    """Say a proposition. Behind "the" every other word follows a space, as one token wherever the text stands."""
    said = lang.SENSES[sense][verb]
    if passive:
        return f"the {target}s are {said.participle} by {subject}s"
    return f"the {subject}s {said.plain} {target}s"


def _draw(random: Random) -> tuple[str, int, str, int]:
    proposition = lang.random_proposition(random)
    return proposition.subject, proposition.sense, proposition.object, random.randrange(2)


def _passive(random: Random) -> Exercise:
    subject, sense, target, verb = _draw(random)
    swapped = _say(target, sense, subject, verb, passive=True)
    given = _say(subject, sense, target, verb)
    return Exercise(given, _say(subject, sense, target, verb, passive=True), (swapped, given))


def _active(random: Random) -> Exercise:
    subject, sense, target, verb = _draw(random)
    given = _say(subject, sense, target, verb, passive=True)
    return Exercise(given, _say(subject, sense, target, verb), (_say(target, sense, subject, verb), given))


def _synonym(random: Random) -> Exercise:
    subject, sense, target, verb = _draw(random)
    given = _say(subject, sense, target, verb)
    other = lang.another(random, range(len(lang.SENSES)), sense)
    return Exercise(given, _say(subject, sense, target, 1 - verb), (_say(subject, other, target, verb), given))


def _swap(random: Random) -> Exercise:
    subject, sense, target, verb = _draw(random)
    given = _say(subject, sense, target, verb)
    return Exercise(given, _say(target, sense, subject, verb), (_say(target, sense, subject, verb, True), given))


def _part(which: int) -> Callable[[Random], Exercise]:
    def draw(random: Random) -> Exercise:
        subject, sense, target, verb = _draw(random)
        given = _say(subject, sense, target, verb, passive=random.random() < 0.5)
        nouns = (f"the {subject}s", f"the {target}s")
        return Exercise(given, nouns[which], (nouns[1 - which],))

    return draw


def _kind(random: Random) -> Exercise:
    noun = random.choice(tuple(lang.KIND_OF))
    kind = lang.KIND_OF[noun]
    return Exercise(f"the {noun}", f"the {kind}", tuple(f"the {other}" for other in lang.KINDS if other != kind))


def _verdict(random: Random) -> Exercise:
    (text,), liked = tasks.review(random, clauses=random.choice((1, 2)))
    answers = ("panned", "liked")
    return Exercise(text, answers[liked], (answers[1 - liked],))


def _truth(random: Random) -> Exercise:
    proposition = lang.random_proposition(random)
    asked = proposition if random.random() < 0.5 else lang.change_one(random, proposition)
    verb = random.choice(lang.SENSES[asked.sense])
    given = f"the {lang.render(random, proposition)} . do {asked.subject}s {verb.plain} {asked.object}s ?"
    answers = ("no", "yes")
    right = int(asked == proposition)
    return Exercise(given, answers[right], (answers[1 - right],))


def _sum(random: Random) -> Exercise:
    total = random.randint(0, LARGEST_NUMBER)
    first = random.randint(0, total)
    sign, left, right, answer = random.choice((("+", first, total - first, total), ("-", total, first, total - first)))
    wrong = [number for number in (answer - 1, answer + 1) if 0 <= number <= LARGEST_NUMBER]
    return Exercise(f"{left} {sign} {right}", str(answer), tuple(map(str, wrong)))


OPERATIONS: dict[str, Callable[[Random], Exercise]] = {  # by the cue word of the primer
    "passive": _passive,
    "active": _active,
    "synonym": _synonym,
    "swap": _swap,
    "subject": _part(0),
    "object": _part(1),
    "kind": _kind,
    "verdict": _verdict,
    "truth": _truth,
    "sum": _sum,
}
