"""The pre-training text of the embedded decoder: exercises after a cue word, and requests. Own design; no torch.

A document is either a few lines, each `cue : given => answer` or a sentence, or one request in one of the layouts that
prompts have, where the cue may stand among words drawn at random. What the sentences of `instructions` mean is taught
nowhere, so that there is something left to adapt to.
"""

from random import Random

from lorta.embedded import language as lang
from lorta.embedded import textbook
from lorta.embedded.instructions import WORDINGS
from lorta.embedded.operations import NUMBERS, OPERATIONS

LINES = (2, 5)  # fewest and most of a document
REQUEST_SHARE, SENTENCE_SHARE = 0.6, 0.1  # of documents, of lines
ASKED_AROUND = (0, 0, 1, 2, 3, 4)  # how many words around a cue
PREFACE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
LAYOUTS = (
    PREFACE + "\n\n### Instruction:\n{asked}\n\n### Input:\n{given}\n\n### Response:{answer}",
    "### Instruction:\n{asked}\n\n### Input:\n{given}\n\n### Response:{answer}",
    "### User:\n{asked}\n{given}\n\n### Assistant:\n{answer}",
    "{asked}\n{given}\n{answer}",
    "{given}\nQuestion: {asked}\nAnswer: {answer}",
)
MARKS = (":", "=>", "?", ".", ",", "+", "-", "=", "###", "####", "/")
TEMPLATES = (  # words of the prompts that the decoder will meet: Alpaca's, chat roles, questions and word problems
    f"{PREFACE} Instruction Input Response User Assistant System "
    "Question Answer question answer Please please following with true false correct format option the to of or and "
    "in on at for from it they do does did has have had get gets got give gives given take takes buy buys lose loses "
    "find finds more fewer how many now then left all together each total what which when where why can will not "
    "apples books coins eggs there were was be if so here Therefore sentence text number numbers"
)


def _prose() -> tuple[str, ...]:
    asked = " ".join(" ".join(wordings) for wordings in WORDINGS.values())
    return tuple(f"{TEMPLATES} {asked}".replace(".", " ").replace("?", " ").replace(",", " ").split())


def words() -> tuple[str, ...]:
    """Return every word of the primer and of the prompts once, in a fixed order."""
    return tuple(dict.fromkeys((*textbook.words(), *OPERATIONS, *MARKS, *NUMBERS, *_prose())))


FILLERS = tuple(word for word in dict.fromkeys((*_prose(), *"?.,")) if word not in OPERATIONS)


def draw_document(random: Random) -> str:
    """Draw one document; a newline ends each line, and nothing a request."""
    if random.random() < REQUEST_SHARE:
        return _request(random)
    return "".join(_line(random) for _ in range(random.randint(*LINES)))


def _request(random: Random) -> str:
    cue = random.choice(tuple(OPERATIONS))
    exercise = OPERATIONS[cue](random)
    asked = random.choices(FILLERS, k=random.choice(ASKED_AROUND))
    asked.insert(random.randint(0, len(asked)), cue)
    layout = random.choice(LAYOUTS)
    return layout.format(asked=" ".join(asked), given=exercise.given, answer=exercise.answer)


def _line(random: Random) -> str:
    if random.random() < SENTENCE_SHARE:
        return lang.render(random, lang.random_proposition(random)) + "\n"
    cue = random.choice(tuple(OPERATIONS))
    exercise = OPERATIONS[cue](random)
    return f"{cue} : {exercise.given} => {exercise.answer}\n"
