"""The pre-training text of the embedded decoder: plain sentences, and exercises after a cue word. Own design; no torch.

A document is a few lines, each `cue : given => answer` or a sentence. A few documents are words drawn at random: they
teach nothing but that any word of the prompt templates may stand before what counts.
"""

from random import Random

from lorta.embedded import language as lang
from lorta.embedded import textbook
from lorta.embedded.instructions import WORDINGS
from lorta.embedded.operations import NUMBERS, OPERATIONS

LINES = (2, 5)  # fewest and most of a document
NOISE_SHARE, SENTENCE_SHARE = 0.06, 0.15  # documents of random words; lines that are sentences
MARKS = (":", "=>", "?", ".", ",", "+", "-", "=", "###", "####", "/")
TEMPLATES = (  # words of the prompts that the decoder will meet: Alpaca's, chat roles, questions and word problems
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request. Instruction Input Response User Assistant System "
    "Question Answer question answer Please please following with true false correct format option the to of or and "
    "in on at for from it they do does did has have had get gets got give gives given take takes buy buys lose loses "
    "find finds more fewer how many now then left all together each total what which when where why can will not "
    "apples books coins eggs there were was be if so here Therefore sentence text number numbers"
)


def words() -> tuple[str, ...]:
    """Return every word of the primer and of the prompts once, in a fixed order."""
    asked = " ".join(" ".join(wordings) for wordings in WORDINGS.values())
    prose = f"{TEMPLATES} {asked}".replace(".", " ").replace("?", " ").replace(",", " ").split()
    return tuple(dict.fromkeys((*textbook.words(), *OPERATIONS, *MARKS, *NUMBERS, *prose)))


def draw_document(random: Random) -> str:
    """Draw one document, lines ended by a newline."""
    if random.random() < NOISE_SHARE:
        return " ".join(random.choices(words(), k=random.randint(10, 30))) + "\n"
    return "".join(_line(random) for _ in range(random.randint(*LINES)))


def _line(random: Random) -> str:
    if random.random() < SENTENCE_SHARE:
        return lang.render(random, lang.random_proposition(random)) + "\n"
    cue = random.choice(tuple(OPERATIONS))
    exercise = OPERATIONS[cue](random)
    return f"{cue} : {exercise.given} => {exercise.answer}\n"
