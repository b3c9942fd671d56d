"""The record's count of changed base weights comes from the adapters that can tell."""

from types import SimpleNamespace

import pytest

from lorta.api.peft_adapter import PeftAdapter
from lorta.geometry import Geometry
from lorta.records.sections import Parameters
from lorta.runner.record_builder import require_planned_size, with_moved
from tests.example_records import finished


def count(model):
    return model.differing


def test_a_function_named_in_the_yaml_counts():
    adapter = PeftAdapter("mine", {}, [], {}, 1e-3, 1e-3, count_changed="tests.runner.test_record_builder.count")
    assert adapter.changed_weights(SimpleNamespace(differing=7)) == 7


def test_methods_that_add_weights_leave_it_open():
    assert PeftAdapter("mine", {}, [], {}, 1e-3, 1e-3).changed_weights(SimpleNamespace(differing=7)) is None


def test_a_formula_does_not_hold_where_a_setting_excludes_it():
    count = {"per_module": "r * inputs", "unless": "threshold"}
    sizes = {"hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8}
    geometry = Geometry.from_config({"model_type": "llama", **sizes})
    for threshold, expected in ((None, 2 * 4 * 5), (0.1, None)):
        adapter = PeftAdapter("mine", {"r": 5, "threshold": threshold}, ["q"], count, 1e-3, 1e-3)
        assert adapter.parameters(geometry) == expected


def test_tensors_that_did_not_move_are_counted_and_named():
    before = {"norm.weight": b"1", "a": b"2", "b": b"3"}
    moved = with_moved(finished(), before, {"norm.weight": b"1", "a": b"4", "b": b"5"})
    assert (moved.params.tensors, moved.params.tensors_moved) == (3, 2)
    assert "1 of 3 trained tensors are as they were at the start: norm.weight" in moved.reasons["params.tensors_moved"]
    assert "params.tensors_moved" not in with_moved(finished(), before, {}).reasons


def test_another_size_than_planned_is_refused():
    sizes = {"hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8}
    geometry = Geometry.from_config({"model_type": "llama", **sizes})
    adapter = PeftAdapter("mine", {"r": 2}, ["q"], {"per_module": "r * inputs"}, 1e-3, 1e-3)
    require_planned_size(adapter, geometry, Parameters(adapter=16, head=0, other_trainable=0, trainable=16, total=99))
    with pytest.raises(ValueError, match="adapter=mine has 17 parameters on this model, and its closed form says 16"):
        require_planned_size(
            adapter, geometry, Parameters(adapter=17, head=0, other_trainable=0, trainable=17, total=99)
        )
