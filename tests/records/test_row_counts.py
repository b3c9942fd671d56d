"""What became of the rows that were read: counted, added up, and worth a sentence when many are lost."""

import json
from dataclasses import replace

import pytest

from lorta.records.record import RunRecord
from lorta.records.row_counts import ASKED_FOR, KEEP, MOST_LOST, RowCount, lost_sentences
from lorta.records.sections import Split
from tests.example_records import finished, with_section


def test_read_is_used_and_dropped_together():
    count = RowCount(100).without(KEEP, 10).without("too long", 5).without("too long", 1).without("equal", 0)
    assert count.dropped == {KEEP: 10, "too long": 6}
    assert count.used == 84
    assert str(count) == "84 of 100 rows used (10: task.source.keep; 6: too long)"
    assert str(RowCount(1200)) == "1,200 rows, all used"
    assert str(RowCount(1)) == "1 row, used"


def test_a_cap_drops_what_is_above_it():
    assert RowCount(100).at_most(30, "train") == RowCount(100, {"data.max_train_samples": 70})
    assert RowCount(100).at_most(30, "evaluation") == RowCount(100, {"data.max_eval_samples": 70})
    assert RowCount(100).at_most(100, "train") == RowCount(100).at_most(None, "train") == RowCount(100)
    assert RowCount(100).without("lost", 80).at_most(30, "train").used == 20


@pytest.mark.parametrize("reason", ASKED_FOR)
def test_what_a_setting_asked_for_is_no_loss(reason):
    assert RowCount(100, {reason: 90}).lost_share == 0.0
    assert lost_sentences("dpo", {"train": RowCount(100, {reason: 90})}) == []


def test_more_than_a_twentieth_lost_is_said():
    counts = {"train": RowCount(100, {"too long": 6}), "evaluation": RowCount(100, {"too long": 5})}
    assert MOST_LOST == 0.05
    assert lost_sentences("dpo", counts) == ["dpo, train: 94 of 100 rows used (6: too long)"]
    assert RowCount(0).lost_share == 0.0


def test_a_record_keeps_the_count_and_records_of_before_have_none():
    splits = {"train": Split(rows=94, fingerprint="a", read=100, dropped={"too long": 6})}
    record = with_section(finished(), "task", splits=splits)
    again = RunRecord.from_json(record.to_json(), "x")
    assert again.task.splits["train"].count == RowCount(100, {"too long": 6})
    values = json.loads(record.to_json())
    for key in ("read", "dropped"):
        del values["task"]["splits"]["train"][key]
    before = RunRecord.from_json(json.dumps(values), "x")
    assert before.task.splits["train"] == replace(splits["train"], read=None, dropped=None)
    assert before.task.splits["train"].count is None
