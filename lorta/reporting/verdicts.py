"""The verdicts on a study's questions as a table, sentences and CSV."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lorta.analysis.equivalence import Verdict
from lorta.analysis.questions import Answered, rows_named
from lorta.analysis.significance import AVERAGE
from lorta.analysis.summary import Table, group
from lorta.records.record import Question
from lorta.reporting.captions import title
from lorta.reporting.csv_tables import Value, csv_text
from lorta.reporting.markup import DASH, TextTable, markdown_table, markdown_text
from lorta.reporting.ranges import difference_within
from lorta.reporting.sizes import trained_parameters
from lorta.reporting.styles import printed_label, printed_task

HEADER = (
    *("question", "verdict", "difference", "interval", "interval for equivalence", "seeds", "trained parameters"),
    "note",
)
NOTES = (
    "Verdicts: better or worse, if the interval leaves out 0; equivalent, if the interval for equivalence lies within "
    "the margin (two one-sided tests); else undecided, which does not mean that the methods are alike.",
    "Intervals contain the choice of seeds, and of scored rows where row scores are known. Their level is what the "
    "correction for all questions of the study leaves: no verdict is false with a probability of 95 %. Of a single "
    "question, it is 95 %, and 90 % for equivalence.",
)
AS_MANY = 0.02  # of the reference's parameters: a rank cannot meet a size exactly
PARAMETERS_NOTE = "Trained parameters are counted without the head; those of normalisation layers are included."
SEEDS_NOTE = "Seeds were added until a question was decided, by a rule that stays valid after each look."
CSV_COLUMNS = (
    *("table", "task", "method", "with", "margin", "verdict", "difference", "low", "high", "equivalence_low"),
    *("equivalence_high", "level", "p_difference", "p_equivalence", "seeds", "least_seeds", "most_seeds", "note"),
    *("parameters", "with_parameters"),
)


def verdict_grid(table: Table, answered: Sequence[Answered]) -> TextTable:
    """Return a line for each question."""
    return TextTable(HEADER, tuple(_line(table, of) for of in answered))


def verdict_section(tables: Sequence[Table], answered: Sequence[Sequence[Answered]]) -> str:
    """Return the Markdown section that a study's report begins with, empty where no question was asked."""
    asked = [(table, of_table) for table, of_table in zip(tables, answered, strict=True) if of_table]
    if not asked:
        return ""
    lines = ["## Questions and verdicts", ""]
    for table, of_table in asked:
        lines += [f"### {markdown_text(title(table))}", ""] if len(asked) > 1 else []
        lines += [f"- {markdown_text(text)}" for text in verdict_sentences([table], [of_table])]
        lines += ["", *markdown_table(verdict_grid(table, of_table)), ""]
    notes = dict.fromkeys(text for _, of_table in asked for text in verdict_notes(of_table))
    return "\n".join([*lines, *(f"- {markdown_text(text)}" for text in notes), "", ""])


def verdict_notes(answered: Sequence[Answered]) -> tuple[str, ...]:
    """Return what a reader must know of the verdicts."""
    added = (SEEDS_NOTE,) if any(of.question.seeds for of in answered) else ()
    return (*NOTES, PARAMETERS_NOTE, *added)


class Names(NamedTuple):
    """How sentences name a row of a table by its label, and a task of it."""

    row: Callable[[str], str]
    task: Callable[[Table, str], str]


TYPED = Names(str, lambda table, task: task)  # as commands, records and tables call them: lorta r=11, glue/stsb
PRINTED = Names(printed_label, lambda table, task: printed_task(table.short(task)))  # as papers: LoRTA (r=11), STS-B
MOST_UNANSWERED = 3  # questions of a method that are said one by one


def verdict_sentences(
    tables: Sequence[Table], answered: Sequence[Sequence[Answered]], names: Names = TYPED
) -> list[str]:
    """Return what was found: for each table a sentence for each question with an answer, what these say together, and
    the questions without one."""
    sentences: list[str] = []
    for table, of_table in zip(tables, answered, strict=True):
        together = best_sentence(of_table, names), *fewest_sentences(table, of_table, names)
        sentences += [_sentence(table, of, names) for of in of_table if of.answer]
        sentences += [sentence for sentence in together if sentence]
        sentences += _unanswered(table, [of for of in of_table if not of.answer], names)
    return sentences


def _unanswered(table: Table, questions: Sequence[Answered], names: Names) -> list[str]:
    """Return a sentence for each question without an answer, or one for all of a method where they are many."""
    sentences: list[str] = []
    for (method, task), of_method in group(questions, lambda of: (of.question.method, of.question.task)).items():
        if len(of_method) <= MOST_UNANSWERED:
            sentences += [_sentence(table, of, names) for of in of_method]
            continue
        where = _where(table, task, names)
        against = ", ".join(names.row(of.question.reference) for of in of_method)
        said = f"{names.row(method)} has no answer yet on {where} against {len(of_method)} methods"
        sentences.append(f"{said}, for want of finished runs or of a second seed: {against}.")
    return sentences


def best_sentence(answered: Sequence[Answered], names: Names = TYPED) -> str | None:
    """Return which method is the best where every pair of three or more was compared; None where that was not asked."""
    asked = list(dict.fromkeys(name for of in answered for name in (of.question.method, of.question.reference)))
    pairs = {frozenset((of.question.method, of.question.reference)) for of in answered if of.question.margin is None}
    if len(asked) < 3 or len(pairs) < len(asked) * (len(asked) - 1) // 2:
        return None
    beaten = {loser for of in answered if (loser := _loser(of)) is not None}
    left = [name for name in asked if name not in beaten]
    if len(left) == 1:
        return f"Best of all: {names.row(left[0])}."
    return f"Best of all: undecided; no method is better than {', '.join(map(names.row, left))}."


def fewest_sentences(table: Table, answered: Sequence[Answered], names: Names = TYPED) -> list[str]:
    """Return how many times fewer parameters are equivalent, for each method that was asked at several sizes."""
    sentences: list[str] = []
    asked = [of for of in answered if of.question.margin is not None]
    for (method, reference, task), of_method in group(asked, _without_rank).items():
        if len(of_method) < 2:
            continue
        where = f" on {names.task(table, task)}" if task else ""
        margin = _margin(table, of_method[0].question.margin or 0.0)
        equal = [of for of in of_method if of.answer and of.answer.verdict in (Verdict.EQUIVALENT, Verdict.BETTER)]
        sized = sorted((sizes[0], of) for of in equal if (sizes := _sizes(table, of.question)))
        if sized:
            smallest = sized[0][1].question
            sentences.append(
                f"The smallest {names.row(method)} that is equivalent to {names.row(reference)} within {margin}, or "
                f"better{where}: {names.row(smallest.method)}{_ratio(table, smallest)}."
            )
        else:
            sentences.append(
                f"No {names.row(method)} is known to be equivalent to {names.row(reference)} within {margin}{where}."
            )
    return sentences


def _without_rank(of: Answered) -> tuple[str, str, str | None]:
    return of.question.method.partition(" r=")[0], of.question.reference, of.question.task


def _sizes(table: Table, question: Question) -> tuple[int, int] | None:
    """Return what the method and its reference train besides the head, None where a table has not one row of each."""
    rows = rows_named(table, question.method), rows_named(table, question.reference)
    if any(len(of) != 1 for of in rows):
        return None
    one, other = (trained_parameters(of[0]) for of in rows)
    return one, other


def _ratio(table: Table, question: Question) -> str:
    """Return the sizes in words, behind a comma; empty where they are not known."""
    sizes = _sizes(table, question)
    if sizes is None:
        return ""
    one, other = sizes
    counts = f"({one:,} against {other:,})"
    if not one or not other or one == other:
        return f", trained parameters: {one:,} against {other:,}"
    if abs(one - other) < AS_MANY * other:
        return f", with about as many trained parameters {counts}"
    if one < other:
        return f", with {_times(other / one)} times fewer trained parameters {counts}"
    return f", with {_times(one / other)} times as many trained parameters {counts}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"


def to_verdict_csv(tables: Sequence[Table], answered: Sequence[Sequence[Answered]]) -> str:
    """Return one line for each question and table; numbers are in the table's unit."""
    lines: list[Sequence[Value]] = [CSV_COLUMNS]
    for table, of_table in zip(tables, answered, strict=True):
        lines += [_csv_line(table, of) for of in of_table]
    return csv_text(lines)


def _line(table: Table, of: Answered) -> tuple[str, ...]:
    if of.answer is None:
        return (_question(table, of.question), "no answer", *[DASH] * 4, _counts(table, of.question), of.note)
    answer, digits = of.answer, table.decimals + 1
    return (
        _question(table, of.question),
        str(answer.verdict),
        f"{answer.value:+.{digits}f}",
        _bounds(table, of, answer.interval, digits),
        DASH if answer.margin is None else _bounds(table, of, answer.inner, digits),
        str(answer.seeds),
        _counts(table, of.question),
        of.note,
    )


def _counts(table: Table, question: Question) -> str:
    sizes = _sizes(table, question)
    return DASH if sizes is None else f"{sizes[0]:,} against {sizes[1]:,}"


def _question(table: Table, question: Question) -> str:
    where = f" on {table.short(question.task)}" if question.task else ""
    if question.margin is None:
        return f"{question.method} better or worse than {question.reference}{where}?"
    return f"{question.method} equivalent to {question.reference} within {_margin(table, question.margin)}{where}?"


def _margin(table: Table, margin: float) -> str:
    unit = "" if not table.higher_is_better else " point" if margin == 1 else " points"
    return f"{margin:g}{unit}"


def _where(table: Table, task: str | None, names: Names) -> str:
    column = _column(table, task)
    return f"the average of {len(table.tasks)} tasks" if column == AVERAGE else names.task(table, column)


def _sentence(table: Table, of: Answered, names: Names) -> str:
    question = of.question
    method, reference = names.row(question.method), names.row(question.reference)
    where = _where(table, question.task, names)
    if of.answer is None:
        why = of.note.replace(question.reference, reference).replace(question.method, method)
        return f"{method} against {reference} on {where}: no answer, {why}."
    answer, digits = of.answer, table.decimals + 1
    relation = {"equivalent": "equivalent to", "undecided": "undecided against"}
    words = relation.get(str(answer.verdict), f"{answer.verdict} than")
    within = f" within {_margin(table, answer.margin)}" if answer.margin and words.endswith("to") else ""
    bounds, level = answer.interval, answer.level
    if answer.verdict == Verdict.EQUIVALENT:
        bounds, level = answer.inner, 2 * answer.level
    return (
        f"{method} is {words} {reference}{within} on {where}: difference {answer.value:+.{digits}f}, "
        f"{100 * (1 - level):.3g} % interval {_bounds(table, of, bounds, digits)}, {answer.seeds} seeds"
        f"{f' ({of.note})' if of.note else ''}{_ratio(table, question)}."
    )


def _possible(table: Table, of: Answered, bounds: tuple[float, float]) -> tuple[float, float]:
    return difference_within(bounds, table, _column(table, of.question.task), of.answer.alike if of.answer else 0)


def _bounds(table: Table, of: Answered, bounds: tuple[float, float], digits: int) -> str:
    bounds = _possible(table, of, bounds)
    return f"{bounds[0]:+.{digits}f} to {bounds[1]:+.{digits}f}"


def _column(table: Table, task: str | None) -> str:
    return task or (table.tasks[0] if len(table.tasks) == 1 else AVERAGE)


def _loser(of: Answered) -> str | None:
    verdict = of.answer and of.answer.verdict
    if verdict == Verdict.BETTER:
        return of.question.reference
    return of.question.method if verdict == Verdict.WORSE else None


def _csv_line(table: Table, of: Answered) -> Sequence[Value]:
    question, answer = of.question, of.answer
    task = _column(table, question.task)
    numbers: Iterable[float | None] = [None] * 8
    if answer is not None:
        inner = _possible(table, of, answer.inner) if answer.margin is not None else (None, None)
        outer = _possible(table, of, answer.interval)
        numbers = (answer.value, *outer, *inner, answer.level, answer.p_difference, answer.p_equivalence)
    cells = [None if number is None else float(f"{number:.6g}") for number in numbers]
    verdict = "" if answer is None else str(answer.verdict)
    head = (title(table), task, question.method, question.reference, question.margin, verdict)
    return (
        *head,
        *cells,
        answer and answer.seeds,
        *(question.seeds or (None, None)),
        of.note,
        *(_sizes(table, question) or (None, None)),
    )
