"""The verdicts on a study's questions as a table, sentences and CSV."""

from collections.abc import Iterable, Sequence

from lorta.analysis.equivalence import Verdict
from lorta.analysis.questions import Answered
from lorta.analysis.summary import Table
from lorta.records.record import Question
from lorta.reporting.captions import title
from lorta.reporting.csv_tables import Value, csv_text
from lorta.reporting.markup import DASH, TextTable

HEADER = ("question", "verdict", "difference", "interval", "interval for equivalence", "seeds", "note")
NOTES = (
    "Verdicts: better or worse, if the interval leaves out 0; equivalent, if the interval for equivalence lies within "
    "the margin (two one-sided tests); else undecided, which does not mean that the methods are alike.",
    "Intervals contain the choice of seeds, and of scored rows where row scores are known. Their level is what the "
    "correction for all questions of the study leaves: no verdict is false with a probability of 95 %. Of a single "
    "question, it is 95 %, and 90 % for equivalence.",
)
SEEDS_NOTE = "Seeds were added until a question was decided, by a rule that stays valid after each look."
CSV_COLUMNS = (
    *("table", "task", "method", "with", "margin", "verdict", "difference", "low", "high", "equivalence_low"),
    *("equivalence_high", "level", "p_difference", "p_equivalence", "seeds", "least_seeds", "most_seeds", "note"),
)


def verdict_grid(table: Table, answered: Sequence[Answered]) -> TextTable:
    """Return a line for each question."""
    return TextTable(HEADER, tuple(_line(table, of) for of in answered))


def verdict_notes(answered: Sequence[Answered]) -> tuple[str, ...]:
    """Return what a reader must know of the verdicts, and which method is the best if that was asked."""
    added = (SEEDS_NOTE,) if any(of.question.seeds for of in answered) else ()
    best = best_sentence(answered)
    return (*([best] if best else []), *NOTES, *added)


def verdict_sentences(tables: Sequence[Table], answered: Sequence[Sequence[Answered]]) -> list[str]:
    """Return one sentence for each question, for the screen."""
    sentences: list[str] = []
    for table, of_table in zip(tables, answered, strict=True):
        sentences += [_sentence(table, of) for of in of_table]
        best = best_sentence(of_table)
        sentences += [best] if best else []
    return sentences


def best_sentence(answered: Sequence[Answered]) -> str | None:
    """Return which method is the best where every pair of three or more was compared; None where that was not asked."""
    names = list(dict.fromkeys(name for of in answered for name in (of.question.method, of.question.reference)))
    pairs = {frozenset((of.question.method, of.question.reference)) for of in answered if of.question.margin is None}
    if len(names) < 3 or len(pairs) < len(names) * (len(names) - 1) // 2:
        return None
    beaten = {loser for of in answered if (loser := _loser(of)) is not None}
    left = [name for name in names if name not in beaten]
    if len(left) == 1:
        return f"Best of all: {left[0]}."
    return f"Best of all: undecided; no method is better than {', '.join(left)}."


def to_verdict_csv(tables: Sequence[Table], answered: Sequence[Sequence[Answered]]) -> str:
    """Return one line for each question and table; numbers are in the table's unit."""
    lines: list[Sequence[Value]] = [CSV_COLUMNS]
    for table, of_table in zip(tables, answered, strict=True):
        lines += [_csv_line(table, of) for of in of_table]
    return csv_text(lines)


def _line(table: Table, of: Answered) -> tuple[str, ...]:
    if of.answer is None:
        return (_question(table, of.question), "no answer", *[DASH] * 4, of.note)
    answer, digits = of.answer, table.decimals + 1
    return (
        _question(table, of.question),
        str(answer.verdict),
        f"{answer.value:+.{digits}f}",
        _bounds(answer.interval, digits),
        DASH if answer.margin is None else _bounds(answer.inner, digits),
        str(answer.seeds),
        of.note,
    )


def _question(table: Table, question: Question) -> str:
    where = f" on {table.short(question.task)}" if question.task else ""
    if question.margin is None:
        return f"{question.method} better or worse than {question.reference}{where}?"
    return f"{question.method} equivalent to {question.reference} within {_margin(table, question.margin)}{where}?"


def _margin(table: Table, margin: float) -> str:
    unit = "" if not table.higher_is_better else " point" if margin == 1 else " points"
    return f"{margin:g}{unit}"


def _sentence(table: Table, of: Answered) -> str:
    question = of.question
    where = question.task or (table.tasks[0] if len(table.tasks) == 1 else f"the average of {len(table.tasks)} tasks")
    if of.answer is None:
        return f"{question.method} against {question.reference} on {where}: no answer, {of.note}."
    answer, digits = of.answer, table.decimals + 1
    relation = {"equivalent": "equivalent to", "undecided": "undecided against"}
    words = relation.get(str(answer.verdict), f"{answer.verdict} than")
    within = f" within {_margin(table, answer.margin)}" if answer.margin and words.endswith("to") else ""
    bounds, level = answer.interval, answer.level
    if answer.verdict == Verdict.EQUIVALENT:
        bounds, level = answer.inner, 2 * answer.level
    return (
        f"{question.method} is {words} {question.reference}{within} on {where}: difference {answer.value:+.{digits}f}, "
        f"{100 * (1 - level):.3g} % interval {_bounds(bounds, digits)}, {answer.seeds} seeds"
        f"{f' ({of.note})' if of.note else ''}."
    )


def _bounds(bounds: tuple[float, float], digits: int) -> str:
    return f"{bounds[0]:+.{digits}f} to {bounds[1]:+.{digits}f}"


def _loser(of: Answered) -> str | None:
    verdict = of.answer and of.answer.verdict
    if verdict == Verdict.BETTER:
        return of.question.reference
    return of.question.method if verdict == Verdict.WORSE else None


def _csv_line(table: Table, of: Answered) -> Sequence[Value]:
    question, answer = of.question, of.answer
    task = question.task or (table.tasks[0] if len(table.tasks) == 1 else "average")
    numbers: Iterable[float | None] = [None] * 8
    if answer is not None:
        inner = answer.inner if answer.margin is not None else (None, None)
        numbers = (answer.value, *answer.interval, *inner, answer.level, answer.p_difference, answer.p_equivalence)
    cells = [None if number is None else float(f"{number:.6g}") for number in numbers]
    verdict = "" if answer is None else str(answer.verdict)
    head = (title(table), task, question.method, question.reference, question.margin, verdict)
    return (*head, *cells, answer and answer.seeds, *(question.seeds or (None, None)), of.note)
