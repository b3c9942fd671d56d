"""The embedded language: its words, its propositions, and what is true of them. Own design; no torch.

A proposition is (subject, verb sense, object). It can be said in the active or the passive voice, with either verb of a
sense, so that two sentences may mean the same and share few words. Every function draws
from the `random.Random` it is given and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Noun(NamedTuple):
    """A noun in both numbers."""

    singular: str
    plural: str


class Verb(NamedTuple):
    """A transitive verb: bare (plural) form, third person singular, past participle."""

    plain: str
    third: str
    participle: str


KINDS: dict[str, tuple[str, ...]] = {  # hypernym -> its nouns; every plural ends in -s
    "animal": ("dog", "cat", "horse", "cow"),
    "worker": ("nurse", "farmer", "teacher", "baker"),
    "relative": ("uncle", "aunt", "cousin", "sister"),
    "vehicle": ("car", "truck", "tram", "van"),
}
KIND_OF = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}
NOUNS = tuple(Noun(noun, noun + "s") for noun in KIND_OF)
SENSES: tuple[tuple[Verb, Verb], ...] = (  # two verbs that mean the same
    (Verb("chase", "chases", "chased"), Verb("pursue", "pursues", "pursued")),
    (Verb("help", "helps", "helped"), Verb("assist", "assists", "assisted")),
    (Verb("push", "pushes", "pushed"), Verb("shove", "shoves", "shoved")),
    (Verb("praise", "praises", "praised"), Verb("admire", "admires", "admired")),
    (Verb("watch", "watches", "watched"), Verb("observe", "observes", "observed")),
    (Verb("call", "calls", "called"), Verb("phone", "phones", "phoned")),
)
VERBS = tuple(verb for pair in SENSES for verb in pair)
PREPOSITIONS = ("near", "behind", "beside")
TOPICS = ("film", "story", "song", "actor", "plot", "scene")
PRAISE = ("good", "great", "fine", "lovely", "clever", "superb")
BLAME = ("bad", "poor", "awful", "dull", "weak", "boring")
ADVERBS = ("very", "quite", "really")


@dataclass(frozen=True)
class Proposition:
    """Who does what to whom; nouns are singular lemmas, `sense` indexes SENSES."""

    subject: str
    sense: int
    object: str


def random_proposition(random: Random) -> Proposition:
    """Draw a proposition whose subject and object differ."""
    subject, target = random.sample(list(KIND_OF), 2)
    return Proposition(subject, random.randrange(len(SENSES)), target)


def render(random: Random, proposition: Proposition, passive: float = 0.3) -> str:
    """Say a proposition in bare plurals; `passive` is the probability of the passive voice."""
    verb = random.choice(SENSES[proposition.sense])
    if random.random() < passive:
        return f"{proposition.object}s are {verb.participle} by {proposition.subject}s"
    return f"{proposition.subject}s {verb.plain} {proposition.object}s"


def another(random: Random, values: Sequence[T], *taken: T) -> T:
    """Draw one of the values that are not taken."""
    return random.choice([value for value in values if value not in taken])


def change_one(random: Random, proposition: Proposition) -> Proposition:
    """Return a proposition that differs: the roles swapped, or another subject, sense or object."""
    subject, sense, target = proposition.subject, proposition.sense, proposition.object
    change = random.randrange(4)
    if change == 0:
        return Proposition(target, sense, subject)
    if change == 1:
        return Proposition(another(random, tuple(KIND_OF), subject, target), sense, target)
    if change == 2:
        return Proposition(subject, another(random, range(len(SENSES)), sense), target)
    return Proposition(subject, sense, another(random, tuple(KIND_OF), subject, target))


def generalise(random: Random, proposition: Proposition) -> Proposition:
    """Replace subject, object or both by the name of their kind."""
    which = random.choice((1, 2, 3))
    subject = KIND_OF[proposition.subject] if which & 1 else proposition.subject
    target = KIND_OF[proposition.object] if which & 2 else proposition.object
    return Proposition(subject, proposition.sense, target)


def follows(premise: Proposition, hypothesis: Proposition) -> bool:
    """Tell whether the hypothesis is the premise with no, one or two nouns generalised."""
    return premise.sense == hypothesis.sense and all(
        given == said or KIND_OF.get(given) == said
        for given, said in ((premise.subject, hypothesis.subject), (premise.object, hypothesis.object))
    )


def overlap(first: Proposition, second: Proposition) -> int:
    """Return the overlap in meaning, 0 to 5: a noun counts 2 (1 for its kind alone), the verb sense 1."""
    nouns = ((first.subject, second.subject), (first.object, second.object))
    same = sum(2 if a == b else KIND_OF.get(a, a) == KIND_OF.get(b, b) for a, b in nouns)
    return same + (first.sense == second.sense)
