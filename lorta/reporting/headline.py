"""Suites in README.md: the headline, with sentences, at most eight rows and a figure; of other suites one line each."""

from collections.abc import Sequence

from lorta.analysis.item_scores import ItemScores
from lorta.analysis.questions import Answered, answer_questions, rows_named, stated
from lorta.analysis.significance import Analysis, analyse, columns
from lorta.analysis.summary import Row, Table, group, summarise
from lorta.records.record import RunRecord
from lorta.reporting.best_first import score_of
from lorta.reporting.captions import title
from lorta.reporting.gains import gain_sentence
from lorta.reporting.markup import DASH, TextTable, markdown_table, markdown_text
from lorta.reporting.notes import collapse_text
from lorta.reporting.ranges import within_range
from lorta.reporting.sizes import trained_parameters
from lorta.reporting.styles import family_place, printed_label, printed_name, printed_task
from lorta.reporting.tables import count_text, interval_text
from lorta.reporting.verdicts import PRINTED, verdict_sentences

MOST_ROWS = 8
LINKS = (
    "Intervals, notes and sizes: [report](results/reports/{name}.md). Data: [records](results/records/{records}), "
    "[recipe](conf/experiment/{name}.yaml), [page](results/pages/{name}.html)."
)
NOTES = "Scores x 100, with 95 % intervals over all seeds. Trained parameters are counted without the head."
NO_QUESTION = "This suite asked no question, so it has no verdict."


def headline(records: Sequence[RunRecord], items: ItemScores, name: str, file: str) -> str:
    """Return the Markdown text of a committed suite; `file` is that of its records.

    Raises ValueError for a suite without a table. Of several tables, the one with the most runs is shown.
    """
    table, answered = _largest(records, items, file)
    known = [of for of in answered if of.answer]
    sentences = verdict_sentences([table], [known], PRINTED) or [NO_QUESTION]
    kind, shown = ("study", "against the reference") if answered else ("", "by method")
    figure = f"![Score over trained parameters, {shown}](results/figures/{name}{f'.{kind}' if kind else ''}.png)"
    blocks = [
        _about(table),
        "\n".join(f"- **{markdown_text(sentence)}**" if answered else sentence for sentence in sentences),
        "\n".join(markdown_table(_grid(table, analyse(table, items), answered))),
        " ".join([NOTES, *_collapsed(table), *_unanswered(len(answered) - len(known))]),
        figure,
        LINKS.format(name=name, records=file),
    ]
    return "\n\n".join(blocks) + "\n"


def finding(records: Sequence[RunRecord], items: ItemScores, name: str, file: str) -> str:
    """Return a line of Markdown on a committed suite: its first verdict, and what training gained where that is known.

    Raises ValueError as `headline` does.
    """
    table, answered = _largest(records, items, file)
    first = ([of for of in answered if of.answer] or answered)[:1]
    sentence = verdict_sentences([table], [first], PRINTED)[0] if first else NO_QUESTION
    gained = gain_sentence(table, items, PRINTED)
    tasks = ", ".join(printed_task(table.short(task)) for task in table.tasks)
    links = f"[report](results/reports/{name}.md), [page](results/pages/{name}.html)"
    return f"- {tasks}: **{markdown_text(sentence)}** {markdown_text(gained)}{' ' if gained else ''}{links}\n"


def _largest(records: Sequence[RunRecord], items: ItemScores, file: str) -> tuple[Table, Sequence[Answered]]:
    """Return the table with the most runs, of those with questions if there are any, and its answers."""
    tables = summarise(records)
    if not tables:
        raise ValueError(f"{file} has no finished run to show: name another suite.")
    answers = answer_questions(tables, stated(records), items)
    number = max(range(len(tables)), key=lambda place: (bool(answers[place]), len(tables[place].runs)))
    return tables[number], answers[number]


def _about(table: Table) -> str:
    seeds = sorted({len({run.record.seed for run in row.runs}) for row in table.rows})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    tasks = ", ".join(printed_task(table.short(task)) for task in table.tasks)
    return f"{tasks}: {title(table)}; {count} seed{'' if seeds[-1] == 1 else 's'}."


def _collapsed(table: Table) -> list[str]:
    return [
        f"Of {PRINTED.row(row.label)}, {PRINTED.task(table, task)}: {text}."
        for row in table.rows
        for task in table.tasks
        if (text := collapse_text(row, task))
    ]


def _unanswered(count: int) -> list[str]:
    return [f"Questions of the study without an answer yet: {count}."] if count else []


def _grid(table: Table, analysis: Analysis, answered: Sequence[Answered]) -> TextTable:
    """Return the rows that questions are about, then the best size of the best other methods."""
    verdicts: dict[str, str] = {}
    for of in (of for of in answered if of.answer):
        label = rows_named(table, of.question.method)[0].label
        verdicts[label] = f"{verdicts[label]}; {_verdict(of)}" if label in verdicts else _verdict(of)
    names = [printed_task(table.short(task), table.metrics[task]) for task in table.tasks]
    header = ("method", "trained parameters", *names, *columns(table)[len(names) :], *(["verdict"] if verdicts else []))
    body: list[tuple[str, ...]] = []
    for number in _chosen(table, [of for of in answered if of.answer]):
        row = table.rows[number]
        scores = [_score(table, analysis, number, column) for column in columns(table)]
        told = [verdicts.get(row.label, "")] if verdicts else []
        body.append((printed_name(row.adapter, row.rank, row.variant), _count(row), *scores, *told))
    return TextTable(header, tuple(body), left=1)


def _verdict(of: Answered) -> str:
    assert of.answer is not None
    return f"{of.answer.verdict} ({printed_label(of.question.reference)})"


def _count(row: Row) -> str:
    low, high = row.adapter_parameters, row.other_parameters
    return count_text(low) if not high.high else f"{trained_parameters(row):,}"


def _score(table: Table, analysis: Analysis, number: int, column: str) -> str:
    interval = analysis.intervals.get((number, column))
    if interval is not None:
        return interval_text(within_range(interval, table, column), table.decimals)
    value = score_of(table.rows[number], column)
    return DASH if value is None else f"{value:.{table.decimals}f}"


def _chosen(table: Table, answered: Sequence[Answered]) -> list[int]:
    """Return the numbers of the rows to show, by family and size."""
    labels = [name for of in answered for name in (of.question.reference, of.question.method)]
    asked = [table.rows.index(row) for label in dict.fromkeys(labels) for row in rows_named(table, label)][:MOST_ROWS]
    column, sign = columns(table)[-1], 1 if table.higher_is_better else -1

    def worth(number: int) -> float:
        value = score_of(table.rows[number], column)
        return float("-inf") if value is None else sign * value

    methods = {table.rows[number].adapter for number in asked}
    others = [number for number, row in enumerate(table.rows) if row.adapter not in methods]
    best = [max(of, key=worth) for of in group(others, lambda number: table.rows[number].adapter).values()]
    chosen = [*asked, *sorted(best, key=worth, reverse=True)][:MOST_ROWS]
    return sorted(chosen, key=lambda number: (family_place(table.rows[number].adapter), number))
