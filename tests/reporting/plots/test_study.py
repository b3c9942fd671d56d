"""The figure of a study and the headline that README shows: what is in them, from records with known answers."""

from dataclasses import replace

import pytest

from lorta.analysis.questions import answer_questions, stated
from lorta.analysis.summary import summarise
from lorta.records.record import Question, RunRecord
from lorta.reporting.headline import headline
from lorta.reporting.plots.study import StudyPanel, study_panels
from lorta.reporting.plots.study_figure import draw_study
from lorta.reporting.report import write_report
from tests.example_records import finished

SCORES = (0.80, 0.81, 0.80, 0.79)
ASKED = tuple(Question(method=f"lorta r={rank}", reference="lora r=8", margin=1.0) for rank in (4, 16))


def study(*questions: Question) -> list[RunRecord]:
    """Return a reference, an equivalent and a worse size, a method nobody asks about, a far one, and three lines."""
    runs = [("lora", 8, 4000, 0.0), ("lorta", 16, 1600, 0.0), ("lorta", 4, 400, 0.05), ("vera", 4, 500, 0.01)]
    runs += [("lotr", 4, 450, 0.5), ("full", None, 1_000_000, 0.0), ("head_only", None, 0, 0.04)]
    return [
        replace(finished(name, "rte", value - less + seed * size % 7 / 2000, seed, rank, size), questions=questions)
        for name, rank, size, less in runs
        for seed, value in enumerate(SCORES)
    ]


def the_panel(*questions: Question) -> StudyPanel:
    records = study(*questions)
    (table,) = summarise(records)
    (panel,) = study_panels(table, answer_questions([table], stated(records), {})[0], {})
    return panel


@pytest.fixture(scope="module")
def panel() -> StudyPanel:
    return the_panel(*ASKED)


def test_verdicts_and_bars_stand_about_the_reference(panel):
    points = {point.name: point for point in panel.points}
    assert (panel.reference.name, panel.margin) == ("LoRA (r=8)", 1.0)
    assert {name: point.verdict for name, point in points.items()} == {
        "LoRTA (r=16)": "equivalent",
        "LoRTA (r=4)": "worse",
        "VeRA (r=4)": "",
    }
    equal, worse = points["LoRTA (r=16)"], points["LoRTA (r=4)"]
    assert (equal.score, worse.score) == (pytest.approx(80.125), pytest.approx(75.075))  # as in the table
    assert equal.inner is not None
    assert panel.reference.score - 1 <= equal.inner[0] <= equal.inner[1] <= panel.reference.score + 1


def test_sizes_that_the_axis_cannot_show_are_lines_and_far_scores_are_named(panel):
    assert [point.name for point in panel.lines] == ["Full FT", "Head only"]
    assert [point.name for point in panel.outside] == ["LoTR (r=4)"]
    assert 70 < panel.y_range[0] < 75 < 81 < panel.y_range[1] < 82.5


def test_the_figure_says_each_verdict_beside_its_mark(panel):
    figure = draw_study([panel], "column")
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"r=16\nequivalent", "r=4\nworse", "Full FT, 1.0M", "VeRA", "LoRTA"} <= texts
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["LoRA (r=8) ± 1"]
    note = " ".join(figure.get_supxlabel().split())
    assert "filled if equivalent, open if worse" in note and "Outside the axis: LoTR (r=4) 30.1" in note
    assert figure.get_figwidth() == 3.25


def test_methods_without_a_size_have_their_verdict_in_their_name():
    records = [
        replace(finished(name, "rte", value + less + seed * place % 3 / 1000, seed, None, 0), questions=questions)
        for questions in [(Question(method="ln_tuning", reference="head_only", margin=1.0),)]
        for place, (name, less) in enumerate({"head_only": 0.0, "ln_tuning": 0.05}.items())
        for seed, value in enumerate(SCORES)
    ]
    (table,) = summarise(records)
    figure = draw_study(study_panels(table, answer_questions([table], stated(records), {})[0], {}))
    assert "LN tuning, 0: better" in {text.get_text() for text in figure.axes[0].texts}


def test_a_study_of_losses_is_drawn_the_right_way_round():
    def lower(record: RunRecord) -> RunRecord:
        assert record.task is not None
        return replace(record, task=replace(record.task, higher_is_better=False))

    (table,) = summarise([lower(record) for record in study(*ASKED)])
    (panel,) = study_panels(table, answer_questions([table], ASKED, {})[0], {})
    (low,) = [point for point in panel.points if point.name == "LoRTA (r=4)"]
    assert (low.score, low.verdict) == (pytest.approx(0.75075), "equivalent") and low.score < panel.reference.score


def test_a_report_draws_a_study_and_nothing_without_questions(tmp_path):
    write_report(study(*ASKED), "x", tmp_path)
    write_report(study(), "y", tmp_path)
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["x.png", "x.study.png", "y.png"]


def test_a_headline_has_a_verdict_at_most_eight_rows_and_one_figure():
    records = study(*ASKED)
    records += [
        replace(finished(f"m{number}", "rte", value - 0.2, seed, 4, 700), questions=ASKED)
        for number in range(9)
        for seed, value in enumerate(SCORES)
    ]
    text = headline(records, {}, "x", "x.jsonl.gz")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert "- **LoRTA (r=16) is equivalent to LoRA (r=8) within 1 point on RTE: difference" in text
    assert len(rows) == 8 and text.count("![") == 1 and "results/figures/x.study.png" in text
    assert any(row.startswith("| LoRTA (r=4) | 400 | 75") and row.endswith("| worse (LoRA (r=8)) |") for row in rows)
    assert not any("m8" in row for row in rows)


def test_a_question_about_another_reference_is_in_the_table_and_not_in_the_figure():
    other = Question(method="lorta r=16", reference="vera r=4", margin=2.0)
    assert the_panel(*ASKED, other).reference.name == "LoRA (r=8)"
    text = headline(study(*ASKED, other), {}, "x", "x.jsonl.gz")
    assert "| equivalent (LoRA (r=8)); equivalent (VeRA (r=4)) |" in text


def test_a_headline_without_a_question_says_so():
    text = headline(study(), {}, "x", "x.jsonl.gz")
    assert "asked no question" in text and "results/figures/x.png" in text
