"""The cache of tokenised rows: its key follows everything that the rows depend on, and it keeps their count."""

import json
import os
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from experiments.tokenised import cache_key, cached, encode_texts, refuse_unknown
from lorta.api.task import DataPlan
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.config.settings import DataSettings
from lorta.models.locate import find_model
from lorta.models.tokenizer import load_tokenizer
from lorta.planning.planner import make_plan
from lorta.records.row_counts import TEXT_CUT, RowCount, RowsUnusable

ROWS = [{"sentence": f"the old dog {index}", "label": index % 2, "idx": index} for index in range(20)]
PLAN = DataPlan("local", "sha256", {"train": "a", "evaluation": "b"})
TASKS = ("glue/sst2", "instruct", "dpo")
PLACES = {"root", "source", "holdout"}  # move no row of a split, or choose among its cached rows


def data(**settings) -> DataSettings:
    defaults = {"source": "auto", "root": None, "max_train_samples": None, "max_eval_samples": None, "max_length": 16}
    return DataSettings(**(defaults | settings))


def task(name: str) -> Any:
    return build(make_plan([f"task={name}"], False, CONF).specs[0].settings.task)


@pytest.fixture
def tokenizer():
    return load_tokenizer(find_model(make_plan(["task=glue/sst2"], False, CONF).specs[0].settings.model))


def other(value: Any) -> Any:
    """A value of the same kind that is another one."""
    kinds = {bool: lambda: not value, str: lambda: value + "x", type(None): lambda: "x"}
    kinds |= {int: lambda: value + 1, float: lambda: value + 1.0}
    if isinstance(value, dict):
        first = next(iter(value))
        return {**value, first: other(value[first])}
    if isinstance(value, list | tuple):
        return [*value, "x"]
    return kinds[type(value)]()


@pytest.mark.parametrize("name", TASKS)
def test_every_setting_of_the_task_changes_the_key(name, tokenizer):
    found = task(name)
    key = cache_key(found, PLAN, data(), "train", tokenizer)
    for field in fields(found):
        changed = object.__new__(type(found))  # some values would be refused: the key must see them all the same
        for item in fields(found):
            value = getattr(found, item.name)
            object.__setattr__(changed, item.name, other(value) if item.name == field.name else value)
        assert cache_key(changed, PLAN, data(), "train", tokenizer) != key, field.name


def test_every_nested_setting_of_the_task_changes_the_key(tokenizer):
    found = task("dpo")
    key = cache_key(found, PLAN, data(), "train", tokenizer)
    for name in found.source:
        changed = replace(found, source={**found.source, name: other(found.source[name])})
        assert cache_key(changed, PLAN, data(), "train", tokenizer) != key, name


@pytest.mark.parametrize(
    ("use", "own", "foreign"),
    [("train", "max_train_samples", "max_eval_samples"), ("evaluation", "max_eval_samples", "max_train_samples")],
)
def test_every_setting_of_the_data_changes_the_key_but_places_and_the_other_split_s_cap(use, own, foreign, tokenizer):
    found = task("instruct")
    key = cache_key(found, PLAN, data(), use, tokenizer)
    values = {
        "source": "local",
        "root": "x",
        "max_train_samples": 3,
        "max_eval_samples": 3,
        "max_length": 9,
        "holdout": 2,
        "columns": ["question"],
        "label": "grade",
    }
    assert set(values) == set(DataSettings.model_fields)
    same = {
        name for name, value in values.items() if cache_key(found, PLAN, data(**{name: value}), use, tokenizer) == key
    }
    assert same == PLACES | {foreign}
    assert own not in same


@pytest.mark.parametrize(
    "change",
    [
        {"source": "hub"},
        {"revision": "x"},
        {"fingerprints": {"train": "x", "evaluation": "b"}},
    ],
)
def test_every_part_of_the_plan_changes_the_key(change, tokenizer):
    found = task("glue/sst2")
    assert cache_key(found, replace(PLAN, **change), data(), "train", tokenizer) != cache_key(
        found, PLAN, data(), "train", tokenizer
    )


def test_the_split_changes_the_key(tokenizer):
    same = replace(PLAN, fingerprints={"train": "a", "evaluation": "a"})
    keys = {cache_key(task("glue/sst2"), same, data(), use, tokenizer) for use in same.fingerprints}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("chat_template", "{{ messages }}"),
        ("truncation_side", "left"),
        ("eos_token", "the"),
        ("model_input_names", ["input_ids"]),
    ],
)
def test_what_a_tokenizer_does_beside_its_vocabulary_changes_the_key(attribute, value, tokenizer):
    key = cache_key(task("instruct"), PLAN, data(), "train", tokenizer)
    setattr(tokenizer, attribute, value)
    assert cache_key(task("instruct"), PLAN, data(), "train", tokenizer) != key


def test_a_word_more_in_the_vocabulary_changes_the_key_and_padding_does_not(tokenizer):
    key = cache_key(task("instruct"), PLAN, data(), "train", tokenizer)
    tokenizer("the old dog", padding="max_length", max_length=9)
    assert cache_key(task("instruct"), PLAN, data(), "train", tokenizer) == key
    tokenizer.add_tokens(["unheard"])
    assert cache_key(task("instruct"), PLAN, data(), "train", tokenizer) != key


def test_rows_and_their_count_come_from_the_cache_the_second_time(tmp_path, tokenizer):
    calls = []

    def make():
        calls.append(1)
        return encode_texts(ROWS, ("sentence",), tokenizer, 8, False, RowCount(24).without("too long", 4))

    first, again = (cached(task("glue/sst2"), PLAN, data(), "train", tokenizer, make, tmp_path) for _ in range(2))
    assert len(calls) == 1
    assert first.rows.to_dict() == again.rows.to_dict()
    assert first.count == again.count == RowCount(24, {"too long": 4})
    assert first.rows["labels"] == [row["label"] for row in ROWS]
    assert max(len(row) for row in first.rows["input_ids"]) <= 8


@pytest.mark.parametrize(("columns", "words", "longest"), [(("a",), 12, 10), (("a", "b"), 6, 9)])
def test_texts_that_are_cut_are_counted(tokenizer, columns, words, longest):
    """Rows of 1 to `words` words in each column; `longest` words in all fit beside the tokens between and around."""
    rows = [{"a": "dog " * n, "b": "cat " * n, "label": 0, "idx": n} for n in range(1, words + 1)]
    room = len(tokenizer("dog " * longest)["input_ids"]) + (0 if len(columns) == 1 else 2)
    encoded, count = encode_texts(rows, columns, tokenizer, room, False, RowCount(words))
    lengths = [len(tokenizer(*(row[name] for name in columns))["input_ids"]) for row in rows]
    assert count.noted == {TEXT_CUT: sum(length > room for length in lengths)}
    assert 0 < count.noted[TEXT_CUT] < sum(len(tokens) == room for tokens in encoded["input_ids"]) + 1
    _, whole = encode_texts(rows, columns, tokenizer, max(lengths), False, RowCount(words))
    assert whole.noted == {}


def test_the_cache_can_be_read_by_all_who_may_read_new_files(tmp_path, tokenizer):
    """Its folders are made by `mkdtemp`, for their owner alone: nobody else could use a shared cache."""
    columns, _ = encode_texts(ROWS, ("sentence",), tokenizer, 8, False, RowCount(24))
    before = os.umask(0o027)
    try:
        cached(task("glue/sst2"), PLAN, data(), "train", tokenizer, lambda: (columns, RowCount(24)), tmp_path)
    finally:
        os.umask(before)
    (folder,) = (tmp_path / "tokenised").iterdir()
    assert oct(folder.stat().st_mode & 0o777) == "0o750"
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o640"}


def test_two_tasks_of_the_same_rows_have_each_their_own_choice_of_them(tmp_path, tokenizer):
    folder = tmp_path / "data"
    for name in ("glue/rte", "mine/rte"):
        (folder / name).mkdir(parents=True)
        rows = [{"sentence1": f"dog {n}", "sentence2": "ball", "label": n % 2, "idx": n} for n in range(40)]
        for split in ("train", "validation"):
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    glue = task("glue/rte")
    mine, chosen = replace(glue, name="mine/rte"), {}
    for cache in ("shared", "alone"):
        for found in (glue, mine) if cache == "shared" else (mine,):
            settings = data(root=str(folder), max_train_samples=10)
            plan = found.plan_data(settings, "hub")
            chosen[cache, found.name] = found.load_data(plan, settings, tokenizer, tmp_path / cache).train["idx"]
    assert chosen["shared", "mine/rte"] == chosen["alone", "mine/rte"] != chosen["shared", "glue/rte"]


class Words:
    """A tokenizer as far as its numbers are asked for."""

    all_special_ids, unk_token_id, eos_token_id, bos_token_id, pad_token_id = (0, 1, 2, 3), 3, 2, 0, 1

    def __len__(self):
        return 5


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([[0, 3, 3, 9, 2]], "67% of their tokens are unknown"),
        ([[0, 3, 3, 3, 2]], "100% of their tokens are unknown"),
        ([[0, 2]], "all of their text is unknown"),
        ([], "all of their text is unknown"),
        ([[0, 3, 9, 2]], None),
        ([[0, 8, 9, 2]], None),
    ],
)
def test_rows_of_which_more_than_half_is_unknown_are_refused(ids, sentence):
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "idx": list(range(len(ids)))}
    if sentence is None:
        refuse_unknown("rows", columns, Words(), {})
        return
    with pytest.raises(
        ValueError, match=rf"^rows: {sentence} to the tokenizer \(5 tokens\).*copy the tokenizer's files"
    ):
        refuse_unknown("rows", columns, Words(), {})


def test_an_unknown_token_that_is_also_the_end_counts_for_nothing():
    tokenizer = Words()
    tokenizer.unk_token_id = tokenizer.eos_token_id  # GPT-2's
    refuse_unknown("rows", {"chosen_ids": [[9, 2], [9, 2]], "prompt_ids": [[2, 2, 2]] * 2}, tokenizer, {})


@pytest.mark.parametrize("name", ["glue/sst2", "instruct", "dpo", "gsm8k"])
def test_every_task_refuses_a_tokenizer_that_knows_no_word(name, tmp_path, tokenizer):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    empty = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "<s>": 2}, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="</s>",
        bos_token="<s>",
    )
    found = task(name)
    settings = data(max_train_samples=8, max_eval_samples=8, max_length=64)
    assert asdict(found)
    with pytest.raises(RowsUnusable, match=f"task={name}, train rows: .* unknown to the tokenizer") as refused:
        found.load_data(found.plan_data(settings, "embedded"), settings, empty, tmp_path)
    assert refused.value.counts["train"].used == 8
