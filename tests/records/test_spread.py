"""A model that answers the same to all rows is marked, one that tells them apart is not."""

import math
from dataclasses import replace

import pytest

from lorta.records.record import RunRecord
from lorta.records.spread import SMALLEST_SHARE, spread_of_classes, spread_of_numbers
from tests.example_records import finished

LABELS = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(("share", "collapsed"), [(0.0, True), (0.13, True), (0.22, True), (0.23, False), (1.0, False)])
def test_a_constant_answer_or_nearly_so_is_a_collapse(share, collapsed):
    spread = spread_of_numbers([2.5 + share * (label - 2.5) for label in LABELS], LABELS)
    assert spread.labels_std == pytest.approx(math.sqrt(3.5))
    assert spread.predictions_std == pytest.approx(share * math.sqrt(3.5))
    assert spread.collapsed is collapsed


def test_a_calibrated_model_at_the_limit_has_the_error_of_a_constant_but_for_a_twentieth():
    predictions = [2.5 + SMALLEST_SHARE * sign for sign in (-1, 1)]
    labels = [(p + e, p) for p in predictions for e in (-math.sqrt(0.95), math.sqrt(0.95))]  # variance 1, slope 1
    assert sum((label - 2.5) ** 2 for label, _ in labels) / 4 == pytest.approx(1)
    assert sum((label - p) ** 2 for label, p in labels) / 4 == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("predictions", "labels", "collapsed"),
    [([1, 1, 1], [0, 1, 1], True), ([0, 1, 1], [0, 1, 1], False), ([1, 1, 1], [1, 1, 1], False), ([], [], False)],
)
def test_one_class_for_all_rows_is_a_collapse_unless_the_labels_have_one_too(predictions, labels, collapsed):
    spread = spread_of_classes(predictions, labels)
    assert (spread.predicted_classes, spread.label_classes) == (len(set(predictions)), len(set(labels)))
    assert spread.collapsed is collapsed


@pytest.mark.parametrize(("predictions", "deviation"), [([], 0.0), ([2.0], 0.0), ([1.0, math.nan], None)])
def test_too_few_rows_or_predictions_that_are_no_numbers_are_no_collapse(predictions, deviation):
    spread = spread_of_numbers(predictions, [3.0] * len(predictions))
    assert (spread.predictions_std, spread.collapsed) == (deviation, False)


def test_a_record_keeps_it_and_an_older_one_is_not_called_collapsed():
    assert finished().collapsed is False
    record = replace(finished(), spread=spread_of_classes([1, 1], [0, 1]))
    assert RunRecord.from_json(record.to_json(), "a test").collapsed is True
