"""How the verdicts on a study's questions are shown: Markdown, CSV, page and screen."""

import csv
import io
import re
from dataclasses import replace

from lorta.analysis.load import Source
from lorta.analysis.questions import answer_questions, stated
from lorta.analysis.summary import summarise
from lorta.cli.main import main
from lorta.records.record import Question, RunRecord
from lorta.records.store import Store
from lorta.reporting.html.assembly import make_page
from lorta.reporting.report import write_report
from lorta.reporting.verdicts import PRINTED, best_sentence, to_verdict_csv, verdict_grid, verdict_sentences
from tests.example_records import finished

QUESTIONS = (
    Question(method="lorta r=4", reference="lora r=4", margin=1.0),
    Question(method="vera r=4", reference="lora r=4"),
)


def study(*questions: Question) -> list[RunRecord]:
    """Return runs of three methods: two alike, one 5 points worse."""
    values = {"lora": (0.8, 0.81, 0.8, 0.79), "lorta": (0.8, 0.811, 0.799, 0.79), "vera": (0.75, 0.76, 0.748, 0.741)}
    return [
        replace(finished(adapter, "rte", value, seed), questions=questions)
        for adapter, of in values.items()
        for seed, value in enumerate(of)
    ]


def test_the_table_of_a_study_states_its_questions_and_verdicts(tmp_path):
    text = write_report(study(*QUESTIONS), "x", tmp_path, figure=False)
    assert text.startswith("## Questions and verdicts\n\n- lorta r=4 is equivalent to lora r=4 within 1 point")
    assert "| lorta r=4 equivalent to lora r=4 within 1 point? | equivalent | +0.00 |" in text
    assert "| vera r=4 better or worse than lora r=4? | worse | -5.03 |" in text
    assert "Questions and verdicts" not in write_report(study(), "y", tmp_path, figure=False)
    assert not (tmp_path / "reports/y.questions.csv").exists()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "reports/x.questions.csv").read_text())))
    assert [(line["method"], line["with"], line["margin"], line["verdict"]) for line in lines] == [
        ("lorta r=4", "lora r=4", "1.0", "equivalent"),
        ("vera r=4", "lora r=4", "", "worse"),
    ]
    assert float(lines[0]["equivalence_low"]) > -1
    assert lines[1]["p_equivalence"] == ""


def test_the_page_has_the_verdicts_and_the_command_says_them(tmp_path, capsys):
    records = study(*QUESTIONS)
    assert "Questions that the study stated" in make_page("x", Source(records, {}, {}), {})
    assert "Questions that the study stated" not in make_page("x", Source(study(), {}, {}), {})
    for record in records:
        Store(tmp_path / "runs").write(record)
    assert main(["report", "--runs", f"{tmp_path}/runs", "--to", f"{tmp_path}/page.html"]) == 0
    out = capsys.readouterr().out
    assert "lorta r=4 is equivalent to lora r=4 within 1 point on glue/rte: difference +0.00, 90 % interval" in out
    assert "vera r=4 is worse than lora r=4 on glue/rte: difference -5.03, 95 % interval" in out


def test_the_best_of_all_is_named_only_when_all_others_are_beaten():
    pairs = [("lora r=4", "lorta r=4"), ("lora r=4", "vera r=4"), ("lorta r=4", "vera r=4")]
    questions = [Question(method=one, reference=other) for one, other in pairs]
    (answered,) = answer_questions(summarise(study()), questions, {})
    assert best_sentence(answered) == "Best of all: undecided; no method is better than lora r=4, lorta r=4."
    assert best_sentence(answered[:2]) is None
    above = [replace(record) for record in study() if record.adapter and record.adapter.name != "lorta"]
    above += [finished("lorta", "rte", 0.9 + seed / 1000, seed) for seed in range(4)]
    (answered,) = answer_questions(summarise(above), questions, {})
    assert best_sentence(answered) == "Best of all: lorta r=4."


def sized(*ranks: int, worse: float = 0.0, reference: int = 4000) -> list[RunRecord]:
    """Return a study that asks about several sizes of one method, the smallest one `worse` than the reference."""
    values, questions = (
        (0.8, 0.81, 0.8, 0.79),
        [Question(method=f"lorta r={r}", reference="lora r=8", margin=1.0) for r in ranks],
    )
    runs = [("lora", 8, reference, 0.0), *(("lorta", rank, 100 * rank, worse * (rank == ranks[0])) for rank in ranks)]
    return [
        replace(
            finished(name, "rte", value - less + seed * rank % 3 / 1000, seed, rank, size), questions=tuple(questions)
        )
        for name, rank, size, less in runs
        for seed, value in enumerate(values)
    ]


def said(records: list[RunRecord]) -> list[str]:
    tables = summarise(records)
    return verdict_sentences(tables, answer_questions(tables, stated(records), {}))


def test_a_verdict_says_how_many_times_fewer_parameters_it_is_about():
    first, _, together = said(sized(4, 16))
    assert first.endswith("4 seeds, with 10 times fewer trained parameters (400 against 4,000).")
    assert together == (
        "The smallest lorta that is equivalent to lora r=8 within 1 point, or better: lorta r=4, with 10 times fewer "
        "trained parameters (400 against 4,000)."
    )
    assert said(sized(80))[0].endswith("with 2 times as many trained parameters (8,000 against 4,000).")
    assert said(sized(40))[0].endswith("4 seeds, trained parameters: 4,000 against 4,000.")
    for reference, words in ((4080, "about as many"), (4100, "1.02 times fewer"), (3900, "1.03 times as many")):
        assert f"with {words} trained parameters (4,000 against" in said(sized(40, reference=reference))[0]


def test_the_smallest_equivalent_size_skips_what_is_worse():
    assert "or better: lorta r=16, with 2.5 times fewer" in said(sized(4, 16, worse=0.05))[-1]
    assert "No lorta is known to be equivalent to lora r=8 within 1 point." in said(sized(4, 8, worse=0.05)[:8])


def test_sizes_of_a_question_are_in_its_table_and_csv():
    records = sized(4)
    tables = summarise(records)
    answered = answer_questions(tables, stated(records), {})
    assert "400 against 4,000" in verdict_grid(tables[0], answered[0]).body[0]
    (line,) = csv.DictReader(io.StringIO(to_verdict_csv(tables, answered)))
    assert (line["parameters"], line["with_parameters"]) == ("400", "4000")


def test_sentences_for_readers_print_methods_and_tasks_as_papers_do():
    """The first screen of a page said `lorta r=4 ... on glue/rte`, its figure and README LoRTA (r=4) and RTE."""
    records = sized(4, 16)
    tables = summarise(records)
    answered = answer_questions(tables, stated(records), {})
    first, _, together = verdict_sentences(tables, answered, PRINTED)
    assert re.match(r"LoRTA \(r=4\) is equivalent to LoRA \(r=8\) within 1 point on RTE: ", first)
    assert together.startswith(
        "The smallest LoRTA that is equivalent to LoRA (r=8) within 1 point, or better: LoRTA (r=4)"
    )


def test_questions_without_an_answer_come_last():
    records = [
        replace(record, questions=(Question(method="vera r=1", reference="lora r=8"), *record.questions))
        for record in sized(4, 16)
    ]
    assert [sentence.partition(" ")[0] for sentence in said(records)] == ["lorta", "lorta", "The", "vera"]
    assert said(records)[-1].startswith("vera r=1 against lora r=8 on glue/rte: no answer, ")


def test_many_questions_without_an_answer_are_one_sentence():
    missing = [f"vera r={rank}" for rank in (1, 2, 4, 8)]
    asked = tuple(Question(method="lorta r=4", reference=name) for name in missing)
    records = [replace(record, questions=(*asked, *record.questions)) for record in sized(4, 16)]
    assert said(records)[-1] == (
        "lorta r=4 has no answer yet on glue/rte against 4 methods, for want of finished runs or of a second seed: "
        "vera r=1, vera r=2, vera r=4, vera r=8."
    )
