"""From what a model wrote, or how likely it found each option, to metrics. Pure: works on a predictions file."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lorta.records.sections import Score

MINUS = "\\-\u2212\u2013\ufe63\uff0d"  # hyphen, minus, en dash, and two forms of other scripts: all stand for one sign
NUMBER = re.compile(
    rf"[+{MINUS}]?(?:(?:\d{{1,3}}(?:,\d{{2,3}})*,\d{{3}}|\d+)(?:\.\d+)?|\.\d+)"  # a comma parts thousands
    rf"(?:[eE][+{MINUS}]?\d+|/\d+)?"
)
CURRENCY = "$\u20ac\u00a3\u00a5"
LINE = rf"\**[{CURRENCY}]?({NUMBER.pattern})[^\S\n]*[.,;!]?\**[^\S\n]*(?=\n|\Z)"  # a number and nothing else
CALCULATION = re.compile(r"<<[^<>]*>>")  # GSM8K's: 12 x 2 = <<12*2=24>>24
ARTICLES = re.compile(r"\b(a|an|the)\b")
CLOSE = 1e-6  # numbers that differ by less are equal
Row = Mapping[str, Any]


def read_number(text: str) -> float | None:
    """Return the number that a text is, spaces around it aside; None where anything is left over, such as a unit."""
    return _value(text.strip()) if NUMBER.fullmatch(text.strip()) else None


def _value(written: str) -> float | None:
    plain = re.sub(f"[{MINUS}]", "-", written).replace(",", "")
    above, _, below = plain.partition("/")
    try:
        value = float(above) / float(below or 1)
    except ZeroDivisionError:
        return None
    return value if math.isfinite(value) else None


def marked_answer(mark: str) -> str:
    """Return the regular expression of a text whose line behind the first `mark` is a number; the number is group 1."""
    first = re.escape(mark.strip())
    return rf"\A(?:(?!{first})[\s\S])*{first}\s*{LINE}"


def number_after(text: str, mark: str) -> float | None:
    """Return the number behind the first `mark`, or None where its line is anything more, such as 50% or 3 1/2.

    A currency sign in front, a full stop behind and emphasis (**7**) are no part of it.
    """
    match = re.match(marked_answer(mark), text)
    return read_number(match[1]) if match else None


def last_number(text: str) -> float | None:
    """Return the last number of a text; None where the last digits are part of more, such as 12:30 or 3 1/2."""
    words = CALCULATION.sub("", text).replace("=", " = ").split()
    place = next((at for at in reversed(range(len(words))) if re.search(r"\d", words[at])), None)
    if place is None or (place > 0 and words[place - 1][-1].isdigit()):
        return None
    return read_number(words[place].lstrip(f"([*{CURRENCY}").rstrip(".,;:!?)]*"))


def named_option(text: str, names: Sequence[str]) -> int | None:
    """Return the place of the option whose name comes first in a text, as a word; None where there is none.

    LLM-Adapters' rule (commonsense_evaluate.py), which takes parts of words too.
    """
    match = re.search("|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True)), text)
    return names.index(match[0]) if match else None


def normalised(text: str) -> str:
    """Return SQuAD's normal form: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def overlap_f1(text: str, reference: str) -> float:
    """Return the F1 of shared words after normalisation, 0 where one of both is empty (SQuAD; MeZO, metrics.py)."""
    said, right = normalised(text).split(), normalised(reference).split()
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0


def _number_metrics(rows: Sequence[Row]) -> dict[str, list[bool] | list[float]]:
    def equal(number: float | None, row: Row) -> bool:
        right = read_number(row["references"][0])
        return number is not None and right is not None and abs(number - right) < CLOSE

    marked = [number_after(row["text"], row["mark"]) for row in rows]
    last = [last_number(row["text"]) for row in rows]
    return {
        "accuracy": [equal(number, row) for number, row in zip(marked, rows, strict=True)],
        "accuracy_last_number": [equal(number, row) for number, row in zip(last, rows, strict=True)],
        "unparsed": [number is None for number in marked],
    }


def _option_metrics(rows: Sequence[Row]) -> dict[str, list[bool] | list[float]]:
    named = [named_option(row["text"], row["names"]) for row in rows]
    return {
        "accuracy": [place in row["correct"] for place, row in zip(named, rows, strict=True)],
        "unparsed": [place is None for place in named],
    }


def _likelihood_metrics(rows: Sequence[Row]) -> dict[str, list[bool] | list[float]]:
    return {"accuracy": [likeliest(row["scores"]) in row["correct"] for row in rows]}


def likeliest(scores: Sequence[float]) -> int:
    """Return the place of the highest score, the first of equals."""
    return max(range(len(scores)), key=lambda place: scores[place])


def _reading_metrics(rows: Sequence[Row]) -> dict[str, list[bool] | list[float]]:
    return {
        "f1": [max(overlap_f1(row["text"], right) for right in row["references"]) for row in rows],
        "exact_match": [
            any(normalised(row["text"]) == normalised(right) for right in row["references"]) for row in rows
        ],
    }


METRICS: dict[str, Callable[[Sequence[Row]], dict[str, list[bool] | list[float]]]] = {  # by a task's `scoring`
    "likelihood": _likelihood_metrics,
    "option": _option_metrics,
    "number": _number_metrics,
    "reading": _reading_metrics,
}


def score(scoring: str, predictions: Sequence[Row]) -> dict[str, Score]:
    """Return the means of the metrics over predictions, each 0 to 1. No rows, or scores that are NaN, say so."""
    if not predictions:
        return {name: Score(value=None, n=0, reason="no rows were scored") for name in METRICS[scoring]([])}
    count, broken = len(predictions), sum(any(s != s for s in row.get("scores", ())) for row in predictions)
    metrics = METRICS[scoring](predictions)
    if broken:
        reason = f"{broken} of {count} rows have a log-probability that is NaN"
        return {name: Score(value=None, n=count, reason=reason) for name in metrics}
    return {name: Score(value=fmean(map(float, values)), n=count) for name, values in metrics.items()}
