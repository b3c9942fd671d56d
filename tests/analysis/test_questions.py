"""The answers to a study's questions, from made-up records."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lorta.analysis.questions import Answered, answer_questions, stated
from lorta.analysis.summary import summarise
from lorta.records.record import Question, RunRecord
from tests.example_records import finished

LIKE = (0.0, 0.002, -0.002, 0.001, -0.001)


def runs(adapter: str, values, tasks: tuple[str, ...] = ("rte",)) -> list[RunRecord]:
    return [finished(adapter, task, value, seed) for task in tasks for seed, value in enumerate(values)]


def answers(records: list[RunRecord], *questions: Question, items=None) -> list[Answered]:
    (answered,) = answer_questions(summarise(records), questions, items or {})
    return list(answered)


def ask(method: str = "lorta r=4", reference: str = "lora r=4", margin: float | None = 1.0, **given) -> Question:
    return Question(method=method, reference=reference, margin=margin, **given)


def test_verdicts_are_those_of_the_paired_differences():
    base = np.array([0.80, 0.82, 0.81, 0.83, 0.80])
    records = [*runs("lora", base), *runs("lorta", base + LIKE), *runs("vera", base - 0.05 + LIKE)]
    like, worse, better = answers(
        records, ask(), ask("vera r=4", margin=None), ask("lora r=4", "vera r=4", margin=None)
    )
    assert [of.answer.verdict for of in (like, worse, better)] == ["equivalent", "worse", "better"]
    alone = answers(records, ask())[0].answer
    difference = 100 * np.array(LIKE)
    low, high = stats.t.interval(0.95, 4, difference.mean(), stats.sem(difference))
    assert alone.interval == pytest.approx((low, high), abs=1e-6)
    assert (alone.seeds, alone.value) == (5, pytest.approx(0.0, abs=1e-9))


def test_several_tasks_are_averaged_and_one_can_be_asked():
    records = [*runs("lora", [0.8, 0.81, 0.82], ("rte", "mrpc")), *runs("lorta", [0.8, 0.81, 0.82], ("rte",))]
    records += runs("lorta", [0.6, 0.615, 0.62], ("mrpc",))
    both, one = answers(records, ask(), ask(task="glue/mrpc"))
    assert both.answer.value == pytest.approx(-19.83 / 2, abs=0.01)
    assert one.answer.value == pytest.approx(-19.83, abs=0.01)


def test_only_seeds_that_both_have_count_and_items_widen_the_interval():
    records = [*runs("lora", [0.5, 0.5, 0.5, 0.9]), *runs("lorta", [0.5, 0.5, 0.5])]
    generator = np.random.default_rng(0)
    items = {record.run_id: tuple(generator.permutation([0.0] * 138 + [1.0] * 139)) for record in records}
    (of,) = answers(records, ask(margin=5.0), items=items)
    assert of.answer.seeds == 3
    assert of.answer.interval[1] > 1.0  # without items nothing varies


def test_a_question_without_runs_says_so_and_counts_in_the_correction():
    records = [*runs("lora", [0.8, 0.81, 0.82]), *runs("lorta", [0.8, 0.812, 0.821])]
    alone = answers(records, ask())[0].answer
    first, absent = answers(records, ask(), ask("vera r=4"))
    assert absent.answer is None
    assert absent.note == "no finished run of vera r=4"
    assert first.answer.level == pytest.approx(alone.level / 2)


def test_a_name_of_several_rows_and_a_single_seed_have_no_answer():
    records = [*runs("lora", [0.8, 0.81]), *runs("lorta", [0.8, 0.81])]
    variants = [finished("lorta", "rte", 0.7, seed, alpha=2) for seed in range(2)]
    (several,) = answers([*records, *variants], ask())
    assert (several.answer, several.note) == (None, "lorta r=4 is 2 rows of the table: name one as the table does")
    assert answers([*records, *variants], ask("lorta r=4 (alpha=2)", margin=None))[0].answer is not None
    (single,) = answers([record for record in records if record.seed == 0], ask())
    assert "two seeds" in single.note


def test_seeds_until_decided_use_the_rule_that_may_look_after_each_seed():
    noise = [0.001, -0.001, 0.0005, 0.0]
    records = [*runs("lora", [0.8] * 3), *runs("lorta", [0.8 + value for value in noise[:3]])]
    records += runs("vera", [0.8, 0.85, 0.78])
    done, open_ = answers(records, ask(seeds=(3, 10)), ask("vera r=4", seeds=(3, 10)))
    assert (done.answer.verdict, done.wanted, done.answer.seeds) == ("equivalent", None, 3)
    assert (open_.answer.verdict, open_.answer.seeds) == ("undecided", 3)
    assert 3 < open_.wanted <= 10
    assert "undecided with 3 seeds" in open_.note


def test_questions_are_read_from_the_records_in_the_order_in_which_they_were_stated():
    questions = (ask(), ask("vera r=4"))
    records = [replace(record, questions=questions) for record in runs("lora", [0.8, 0.9])] + runs("vera", [0.8])
    assert stated(records[::-1]) == questions
    assert RunRecord.from_json(records[0].to_json(), "x").questions == questions
