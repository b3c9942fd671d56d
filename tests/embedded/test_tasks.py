"""The embedded rows: GLUE's columns, stable in content, sound in their labels."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from lorta.embedded import EMBEDDED_TASKS, embedded_fingerprint, embedded_rows
from lorta.embedded import language as lang
from lorta.embedded.tasks import SIZES, rows_fingerprint

COLUMNS = {
    "sst2": ["sentence", "label", "idx"],
    "mrpc": ["sentence1", "sentence2", "label", "idx"],
    "cola": ["sentence", "label", "idx"],
    "qnli": ["question", "sentence", "label", "idx"],
    "rte": ["sentence1", "sentence2", "label", "idx"],
    "stsb": ["sentence1", "sentence2", "label", "idx"],
}
HASH_ROWS = (
    "from lorta.embedded import embedded_rows as r; from lorta.embedded.tasks import rows_fingerprint as f; "
    "print(*(f(r(t, s)) for t in ('cola', 'stsb') for s in ('train', 'validation')))"
)


def texts(row: dict) -> tuple[str, ...]:
    return tuple(value for column, value in row.items() if column not in ("label", "idx"))


def test_the_tasks_are_the_six_that_have_columns():
    assert set(EMBEDDED_TASKS) == set(COLUMNS)


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("task", EMBEDDED_TASKS)
def test_rows_have_the_committed_fingerprint(task, split):
    assert rows_fingerprint(embedded_rows(task, split)) == embedded_fingerprint(task, split)


@pytest.mark.parametrize("task", EMBEDDED_TASKS)
def test_rows_have_the_columns_and_label_types_of_glue(task):
    for row in embedded_rows(task, "validation"):
        assert list(row) == COLUMNS[task]
        assert type(row["label"]) is (float if task == "stsb" else int)
        assert row["label"] in ((0, 1, 2, 3, 4, 5) if task == "stsb" else (0, 1))


@pytest.mark.parametrize("task", EMBEDDED_TASKS)
def test_no_text_occurs_twice_within_or_across_splits(task):
    rows = embedded_rows(task, "train") + embedded_rows(task, "validation")
    assert len({texts(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("task", sorted(set(EMBEDDED_TASKS) - {"stsb"}))
def test_classes_are_balanced_so_that_guessing_scores_one_half(task):
    rows = embedded_rows(task, "validation")
    assert 0.42 < sum(row["label"] for row in rows) / len(rows) < 0.58


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_rows_do_not_depend_on_the_hash_seed_nor_on_torch(hash_seed):
    blocked = "import sys; sys.modules.update(torch=None, transformers=None, tokenizers=None); "
    done = subprocess.run(
        [sys.executable, "-c", blocked + HASH_ROWS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [embedded_fingerprint(task, split) for task in ("cola", "stsb") for split in ("train", "validation")]
    assert done.stdout.split() == expected


def test_callers_may_change_their_rows_without_changing_ours():
    embedded_rows("rte", "train")[0]["label"] = "spoilt"
    assert embedded_rows("rte", "train")[0]["label"] in (0, 1)


@pytest.mark.parametrize(("task", "split"), [("wnli", "train"), ("rte", "test")])
def test_an_unknown_task_or_split_is_refused_with_the_known_ones(task, split):
    with pytest.raises(ValueError, match=r"has no (task 'wnli'|split 'test'); choose one of (sst2|train)"):
        embedded_rows(task, split)


def test_a_hypothesis_follows_upwards_only():
    special = lang.Proposition("dog", 0, "nurse")
    general = lang.Proposition("animal", 0, "nurse")
    assert lang.follows(special, general)
    assert not lang.follows(general, special)


@pytest.mark.parametrize(
    ("second", "score"),
    [(("dog", 0, "nurse"), 5), (("cat", 0, "nurse"), 4), (("nurse", 0, "dog"), 1), (("car", 1, "uncle"), 0)],
)
def test_overlap_counts_roles_not_words(second, score):
    assert lang.overlap(lang.Proposition("dog", 0, "nurse"), lang.Proposition(*second)) == score


@pytest.mark.parametrize("task", ["mrpc", "qnli", "stsb", "rte"])
def test_pairs_use_both_voices_in_either_sentence(task):
    voices = Counter(tuple(" by " in text for text in texts(row)) for row in embedded_rows(task, "train"))
    assert min(voices[first, second] for first in (True, False) for second in (True, False)) > 50
