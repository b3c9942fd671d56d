import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorta.records.record import Parameters, RunRecord, Score, Timing
from lorta.records.sections import Environment
from tests.example_records import finished, unfinished

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def changed(record: RunRecord, **values: Any) -> str:
    return json.dumps(json.loads(record.to_json()) | values)


@settings(max_examples=40)
@given(config=st.dictionaries(st.text(), json_values), value=st.floats(-1, 1), rank=st.none() | st.integers(1, 512))
def test_record_reads_back_as_it_was_written(config, value, rank):
    record = replace(finished(value=value, rank=rank), config=config)
    assert RunRecord.from_json(record.to_json(), "a file") == record


def test_json_does_not_depend_on_the_order_of_mappings():
    record = finished()
    first, second = ({"b": 1, "a": {"d": 2, "c": 3}}, {"a": {"c": 3, "d": 2}, "b": 1})
    assert replace(record, config=first).to_json() == replace(record, config=second).to_json()


def test_records_of_one_environment_keep_its_packages_once():
    """They are most of a record: 100,000 would not fit into a table's memory."""
    packages = {f"package-{number}": "1.0" for number in range(200)}
    read = [
        RunRecord.from_json(replace(finished(), environment=environment(packages | more)).to_json(), "a file")
        for more in ({}, {}, {"other": "2"})
    ]
    same, again, other = (record.environment for record in read)
    assert same and again and other
    assert same.packages is again.packages
    assert (same.packages, other.packages) == (packages, packages | {"other": "2"})


def environment(packages: dict[str, str]) -> Environment:
    return Environment(python="3.11", packages=packages, lock_sha256=None, env_vars={}, allocator=None)


def test_running_record_needs_no_section():
    sections = {item.name: None for item in fields(RunRecord) if item.name in ("adapter", "task", "model", "protocol")}
    record = replace(unfinished("running"), **sections)
    assert RunRecord.from_json(record.to_json(), "a file") == record


def test_measured_nan_becomes_null_with_its_reason():
    record = replace(finished(), train_loss_final=float("nan"), time=Timing(wall_s=1.0, train_s=float("inf")))
    again = RunRecord.from_json(record.to_json(), "a file")
    assert again.train_loss_final is None
    assert again.reasons == {"time.train_s": "the value was inf", "train_loss_final": "the value was nan"}


def test_nan_in_the_configuration_is_refused_by_name():
    record = replace(finished(), config={"trainer": {"learning_rate": float("nan")}})
    with pytest.raises(ValueError, match=r"config\.trainer\.learning_rate must be finite"):
        record.to_json()


def test_value_that_is_no_json_is_refused_by_name():
    with pytest.raises(ValueError, match=r"config\.path must hold JSON values only, got set"):
        replace(finished(), config={"path": {1}}).to_json()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"wall_time": 3}, "the record has the unknown field wall_time"),
        ({"status": "done"}, "'status' must be one of planned, running"),
        ({"seed": "0"}, "'seed' must be int, got str '0'"),
        ({"seed": True}, "'seed' must be int, got bool"),
        ({"run_id": "lora"}, "must be 12 hex digits, got 'lora'"),
        ({"schema_version": 2}, "written by a later version of lorta"),
        ({"metrics": None}, "status success needs metrics"),
        ({"overrides": [1]}, r"'overrides\[0\]' must be str"),
        ({"time": {"wall_s": 1.0}}, "'time' misses the field"),
        ({"metrics": {"test": {"f1": {"value": 1.0}}}}, r"'metrics\.test\.f1' misses the field n, reason"),
    ],
)
def test_foreign_json_is_refused_with_file_and_field(change, problem):
    with pytest.raises(ValueError, match=problem) as error:
        RunRecord.from_json(changed(finished(), **change), "runs/x/record.json")
    assert str(error.value).startswith("runs/x/record.json is not a record of schema 1: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"run_id": NaN}'])
def test_torn_json_is_refused_with_the_file(text):
    with pytest.raises(ValueError, match=r"torn\.json is not a record"):
        RunRecord.from_json(text, "torn.json")


def test_missing_field_is_refused_by_name():
    values = json.loads(finished().to_json())
    del values["task"]["source"]
    with pytest.raises(ValueError, match="'task' misses the field source"):
        RunRecord.from_json(json.dumps(values), "a file")


def test_a_record_from_before_a_field_was_added_is_read_without_it():
    values = json.loads(finished().to_json())
    assert values["params"].pop("changed") is None
    assert RunRecord.from_json(json.dumps(values), "a file") == finished()


@pytest.mark.parametrize("status", ["failed", "timeout", "preempted"])
def test_failed_run_without_its_failure_is_refused(status):
    with pytest.raises(ValueError, match=f"status {status} needs a failure"):
        replace(unfinished("running"), status=status)


def test_skipped_run_without_a_sentence_is_refused():
    with pytest.raises(ValueError, match="status skipped needs a reason"):
        replace(unfinished("running"), status="skipped")


@pytest.mark.parametrize(("value", "reason"), [(None, None), (None, ""), (0.5, "why"), (float("nan"), None)])
def test_score_has_either_a_finite_value_or_a_reason(value, reason):
    with pytest.raises(ValueError, match=r"Score"):
        Score(value=value, n=1, reason=reason)


def test_parameter_parts_must_sum_to_the_trainable_ones():
    with pytest.raises(ValueError, match=r"adapter \+ head \+ other_trainable = 6, got 7"):
        Parameters(adapter=1, head=2, other_trainable=3, trainable=7, total=10)
