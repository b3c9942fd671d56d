"""Rows of public data sets as questions, and sentences about rows that are none."""

import json
import os
from pathlib import Path

import pytest

from experiments.questions.formats import Checked, Choices, Copa, Gsm8k, Reading, Record, WordProblem
from experiments.questions.sources import RowSource
from lorta.config.choices import group_options
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.planning.planner import make_plan

SHARED = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[4] / "shared" / "data"))
ADAPTERS = Choices("Q {instruction} A ", "it is {answer}", "Answer format:", r"\w+")
SQUAD = Reading("T {title} C {context} Q {question} A", ("title", "context", "question"), "answers")


def test_gsm8k_learns_the_worked_solution_and_keeps_the_number():
    found = Gsm8k("{question}\n", "The final answer is: ").question({"question": "2+2?", "answer": "2+2=4\n#### 4"})
    assert (found.prompt, found.answer) == ("2+2?\n", "2+2=4\nThe final answer is: 4")
    assert found.references == ("4",)


def test_a_choice_is_one_of_the_options_that_the_instruction_lists():
    row = {"instruction": "x and/or y?\n\nAnswer format: answer1/answer2/answer3", "answer": "answer2"}
    found = ADAPTERS.question(row)
    assert found.names == ("answer1", "answer2", "answer3") and found.correct == (1,)
    assert found.options == ("it is answer1", "it is answer2", "it is answer3")
    assert found.answer == "it is answer2"


def test_copa_joins_premise_and_choice_as_mezo_does():
    row = {"premise": "The man broke his toe.", "choice1": "He got a hole.", "choice2": "I dropped it.", "label": 1}
    cause, effect = (Copa().question(row | {"question": asked}) for asked in ("cause", "effect"))
    assert cause.prompt + cause.options[0] == "The man broke his toe because he got a hole."
    assert effect.prompt + effect.options[1] == "The man broke his toe so I dropped it."
    assert cause.answer == cause.options[1] and cause.correct == (1,)


def test_record_puts_each_entity_into_the_query_and_knows_all_right_ones():
    row = {
        "passage": "Ann met Bob.\n@highlight\nThey talked",
        "query": "@placeholder left",
        "entities": ["Ann", "Bob", "Eve"],
        "answers": ["Bob", "Ann"],
    }
    found = Record().question(row)
    assert found.prompt + found.options[2] == "Ann met Bob.\n- They talked\n- Eve left"
    assert (found.correct, found.answer) == ((0, 1), " Ann left")


def test_reading_learns_the_first_answer_and_accepts_any():
    row = {"title": "t", "context": "c", "question": "q", "answers": {"text": ["one", "two"], "answer_start": [0, 1]}}
    found = SQUAD.question(row)
    assert (found.prompt, found.answer, found.references) == ("T t C c Q q A", " one\n", ("one", "two"))
    drop = Reading("{passage} {question}", ("passage", "question"), "answers_spans")
    assert drop.question({"passage": "p", "question": "q", "answers_spans": {"spans": ["3"]}}).references == ("3",)


@pytest.mark.parametrize("answer", ["8.0", 8.0, [8.0], ["8.0"]])
def test_a_number_is_read_however_llm_adapters_writes_it(answer):
    found = WordProblem("{question}\n").question({"instruction": "2 * 4?", "answer": answer})
    assert (found.answer, found.references) == ("#### 8.0", ("8.0",))


OTHER_SETS = {  # rows as LLM-Adapters publishes them
    "arc_challenge": (
        "fever?\n\nAnswer1: a Answer2: b Answer3: c\n\nAnswer format: answer1/answer2/answer3",
        "answer3",
    ),
    "piqa": ("Oil it.\n\nSolution1: Drip.\n\nSolution2: Pour.\n\nAnswer format: solution1/solution2", "solution2"),
    "winogrande": ("the _ at home.\n\nOption1: jeans Option2: shirt Answer format: option1/option2", "option1"),
    "hellaswag": ("he\n\nEnding1: a Ending2: b\n\nAnswer format: ending1/ending2", "ending2"),
}


def test_the_recipes_take_other_sets_of_the_same_form(tmp_path):
    """Issue 19: ARC-challenge, PIQA, WinoGrande and MultiArith."""

    def put(place, *rows):
        (file := tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    for name, (instruction, answer) in OTHER_SETS.items():
        for split in ("train", "validation"):
            put(f"commonsense/{name}/{split}.jsonl", {"instruction": instruction, "input": "", "answer": answer})
    put("math/gsm8k/train.jsonl", {"question": "1 + 1?", "answer": "#### 2"})
    put("math/multiarith/validation.jsonl", {"instruction": " 2 * 4? ", "answer": [8.0], "output": "The answer is 8."})
    sets = ",".join(f"commonsense/{name}" for name in OTHER_SETS)
    for recipe, tasks in (("smollm2_commonsense", sets), ("smollm2_gsm8k", "math/multiarith")):
        words = [f"experiment={recipe}", f"task={tasks}", f"data.root={tmp_path}", "model=tiny_llama"]
        plan = make_plan([*words, f"runtime.runs={tmp_path}/runs"], True, CONF)
        assert plan.problems == ()
        assert {spec.settings.task["name"] for spec in plan.specs} == set(tasks.split(","))


@pytest.mark.parametrize(
    ("form", "row", "sentence"),
    [
        (Gsm8k("{question}"), [], "a JSON object is needed, found list"),
        (Gsm8k("{question}"), {"question": "q"}, "column answer is missing; it has question"),
        (Gsm8k("{question}"), {"question": "q", "answer": 4}, "column answer must be text"),
        (Gsm8k("{question}"), {"question": "q", "answer": "4"}, "must end in '#### NUMBER'"),
        (Gsm8k("{question}"), {"question": " ", "answer": "#### 4"}, "column question is empty"),
        (WordProblem("{question}"), {"instruction": "i", "answer": "four"}, "must be a number (such as"),
        (WordProblem("{question}"), {"instruction": "i", "answer": [1, 2]}, "column answer must be text"),
        (WordProblem("{question}"), {"instruction": "i"}, "column answer is missing"),
        (ADAPTERS, {"instruction": "i", "answer": "true"}, "must list its options behind 'Answer format:'"),
        (ADAPTERS, {"instruction": "Answer format: a/b", "answer": "c"}, "'c' is none of the options a, b"),
        (Copa(), {"premise": "p", "choice1": "a", "choice2": "b", "question": "why", "label": 0}, "cause or effect"),
        (Copa(), {"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 2}, "0 or 1, found 2"),
        (Record(), {"passage": "p", "query": "q", "entities": ["e"], "answers": ["e"]}, "must hold @placeholder"),
        (Record(), {"passage": "p", "query": "@placeholder", "entities": ["e"], "answers": ["f"]}, "among entities"),
        (Record(), {"passage": "p", "query": "@placeholder", "entities": [], "answers": ["f"]}, "column entities"),
        (SQUAD, {"title": "t", "context": "c", "question": "q", "answers": {"text": []}}, "column answers must be"),
        (SQUAD, {"title": "t", "context": "c", "question": "q", "answers": {"text": [""]}}, "holds an empty text"),
    ],
)
def test_a_row_of_another_form_is_a_sentence(form, row, sentence):
    assert sentence in Checked(form).problem(row)


QUESTION_TASKS = [
    name for name in group_options(CONF)["task"] if name.startswith(("gsm8k", "math/", "commonsense/", "superglue_qa/"))
]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real questions at {SHARED} (set LORTA_DATA to their folder)")
@pytest.mark.parametrize(
    "name", ["gsm8k", "math/svamp", "math/aqua", "commonsense/boolq", "commonsense/arc_easy", "commonsense/openbookqa"]
)
def test_real_files_pass_every_check(name):
    plan = make_plan([f"task={name}", f"data.root={SHARED}", "model=tiny"], False, CONF)
    assert plan.problems == ()
    assert set(plan.specs[0].fingerprints) == {"train", "evaluation", "model"}


@pytest.mark.parametrize("name", QUESTION_TASKS)
def test_a_folder_without_the_file_is_a_sentence(name, tmp_path):
    plan = make_plan([f"task={name}", f"data.root={tmp_path}", "model=tiny"], False, CONF)
    assert plan.problems and all(f"task={name}: neither" in problem for problem in plan.problems)


def test_a_wrong_row_is_named_by_file_and_line(tmp_path):
    for split in ("train", "validation"):
        file = tmp_path / "math" / "gsm8k" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        good = {"question": "q", "answer": "#### 4"}
        file.write_text("\n".join(json.dumps(row) for row in (good, good | {"answer": "4"})) + "\n")
    problems = make_plan(["task=gsm8k", f"data.root={tmp_path}", "model=tiny"], False, CONF).problems
    assert [
        f"{split}.jsonl, line 2: answer must end in" in problem
        for split, problem in zip(("train", "validation"), problems, strict=True)
    ] == [True, True]


@pytest.mark.parametrize("name", QUESTION_TASKS)
def test_the_hub_is_a_pinned_revision_or_a_sentence(name):
    plan = make_plan([f"task={name}", "data.source=hub", "model=tiny"], False, CONF)
    assert plan.problems and all("not in the local cache" in p or "set data.root=FOLDER" in p for p in plan.problems)


@pytest.mark.parametrize("name", QUESTION_TASKS)
def test_embedded_rows_are_questions_or_a_sentence_says_there_are_none(name):
    plan = make_plan([f"task={name}", "model=tiny"], False, CONF)
    if plan.problems:
        assert all("has no embedded data" in problem for problem in plan.problems)
        return
    task = build(plan.specs[0].settings.task)
    data = plan.specs[0].settings.data.model_copy(update={"max_train_samples": 50, "max_eval_samples": 50})
    for use, node in (("train", task.train_on), ("evaluation", task.evaluate_on)):
        found, count = RowSource(**node).questions("embedded", data, name, use)
        assert len(found) == count.used == 50
