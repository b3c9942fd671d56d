"""The pre-training text of the embedded language: a textbook of sentences, pairs and answered exercises. Own design.

A text is one sentence or two, as RoBERTa joins them, and mostly an exercise about it with its answer. Masked-language
pre-training on it teaches the words, and to work the answers out; the tasks then ask for them where no exercise stands.
No torch.
"""

from random import Random

from lorta.embedded import language as lang
from lorta.embedded import tasks

SCORES = ("zero", "one", "two", "three", "four", "five")
ANSWERS = ("right", "wrong", "liked", "panned", "same", "other", "yes", "no", "known", "unknown", *SCORES)
EXERCISES = ("grammar", "verdict", "meaning", "follows", "overlap", "answer")
SHARES = {"grammar": 0.1, "verdict": 0.15, "answer": 0.25, "meaning": 0.5}  # of the kinds of text
PLAIN_SHARE = 0.4  # texts without an exercise, the form in which the tasks come
SOUND = ("right", "liked", "panned", "known", "same")  # a plain text is grammatical, answers, says the same again


def words() -> tuple[str, ...]:
    """Return every word of the language once, in a fixed order."""
    nouns = [form for noun in (*lang.KIND_OF, *lang.KINDS) for form in (noun, noun + "s")]
    verbs = [form for verb in lang.VERBS for form in verb]
    small = ("the", "this", "these", "is", "are", "by", "who", "not", "but", "although")
    reviews = (*lang.TOPICS, *lang.PRAISE, *lang.BLAME, *lang.ADVERBS)
    return (*small, *nouns, *verbs, *lang.PREPOSITIONS, *reviews, *EXERCISES, *ANSWERS)


def draw_text(random: Random) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Draw a text of one or two sentences and its exercises, each a cue and the answer; none for a plain text."""
    kind = random.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    plain = random.random() < PLAIN_SHARE
    texts, exercises = _DRAW[kind](random)
    while plain and exercises[0][1] not in SOUND:
        texts, exercises = _DRAW[kind](random)
    return texts, [] if plain else exercises


def _grammar(random: Random) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    texts, label = tasks.acceptability(random)
    return texts, [("grammar", "right" if label else "wrong")]


def _verdict(random: Random) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    # Single clauses open the door to the others: from double ones alone nothing is learnt.
    texts, label = tasks.review(random, clauses=random.choice((1, 2)))
    return texts, [("verdict", "liked" if label else "panned")]


def _answer(random: Random) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    texts, label = tasks.question(random)
    return texts, [("answer", "unknown" if label else "known")]


def _meaning(random: Random) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    first, second = random.choice((tasks.paraphrase, tasks.inference, tasks.similarity))(random)
    exercises = [
        ("meaning", "same" if first == second else "other"),
        ("follows", "yes" if lang.follows(first, second) else "no"),
        ("overlap", SCORES[lang.overlap(first, second)]),
    ]
    return tasks.render_pair(random, (first, second)), exercises


_DRAW = {"grammar": _grammar, "verdict": _verdict, "answer": _answer, "meaning": _meaning}
