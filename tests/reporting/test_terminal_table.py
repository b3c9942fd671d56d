"""The table at the end of a sweep: best first, with intervals and ties, no wider than a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lorta.analysis.significance import analyse
from lorta.analysis.summary import summarise
from lorta.records.record import RunRecord
from lorta.reporting.terminal_table import show
from tests.example_records import finished, sweep, with_section

TASKS = ("cola", "mrpc", "qnli", "rte", "sst2", "stsb")


def printed(records: list[RunRecord], width: int = 80) -> str:
    (table,) = summarise(records)
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    show(table, analyse(table, {}), console)
    return console.file.getvalue()


def first_words(text: str) -> list[str]:
    known = ("lora", "vera", "lorta", "head_only")
    return [line.split()[0] for line in text.splitlines() if line.startswith(known)]


def test_the_best_is_first_whatever_the_size():
    scores = {"lora": 0.7, "vera": 0.9, "lorta": 0.8}
    text = printed([finished(name, value=value, parameters=10) for name, value in scores.items()])
    assert first_words(text) == ["vera", "lorta", "lora"]
    assert "the best score first" in text and "add seeds" in text


def test_the_lowest_is_first_where_less_is_better():
    records = [finished(name, value=value) for name, value in (("lora", 0.7), ("vera", 0.9))]
    text = printed([with_section(record, "task", higher_is_better=False) for record in records])
    assert first_words(text) == ["lora", "vera"] and "lower is better" in text


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[:4], TASKS])
def test_it_fits_eighty_columns(tasks):
    names = ("lora", "a_method_with_a_long_name", "vera")
    records = [
        finished(name, task=task, value=0.8 + 0.01 * seed, seed=seed, parameters=1_234_567_890)
        for name in names
        for task in tasks
        for seed in (0, 1, 2)
    ]
    lines = printed(records).splitlines()
    assert max(map(len, lines)) <= 80
    assert ("qnli" in "".join(lines)) == (len(tasks) == 4)  # of more than four, the average alone
    assert "…" not in "".join(lines)  # nothing is cut off


def test_intervals_and_ties_are_marked():
    text = printed([record for record in sweep() if record.adapter and record.task])
    assert "95 % confidence interval" in text and "[" in text.splitlines()[4]
    assert "* not significantly different from the best." in text


def test_the_best_is_no_tie_with_itself():
    """It had the mark of what is not significantly different from it."""
    values = {"lora": (0.80, 0.82, 0.81), "vera": (0.81, 0.80, 0.81), "lorta": (0.5, 0.51, 0.52)}
    records = [finished(name, value=value, seed=seed) for name, of in values.items() for seed, value in enumerate(of)]
    lines = {line.split()[0]: line for line in printed(records).splitlines() if line.startswith(tuple(values))}
    assert list(lines) == ["lora", "vera", "lorta"]
    assert ["*" in line for line in lines.values()] == [False, True, False]


def test_names_are_text_and_no_markup():
    record = finished("lora")
    assert record.model is not None
    text = printed([replace(record, model=replace(record.model, name="[red]tiny[/red]"))])
    assert "[red]tiny[/red]" in text


@pytest.mark.parametrize(("task", "least"), [("rte", "0.0"), ("cola", "-100.0")])
def test_an_interval_ends_where_the_metric_does(task, least):
    """An accuracy of 92 had the interval [56, 127]."""
    high = printed([finished(task=task, value=value, seed=seed) for seed, value in enumerate((0.7, 1.0, 1.0))])
    assert ", 100.0]" in high
    low = printed([finished(task=task, value=value, seed=seed) for seed, value in enumerate((-0.99, 0.3, 0.0))])
    assert f"[{least}, " in low
