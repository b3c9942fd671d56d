"""The record's count of changed base weights comes from the adapters that can tell."""

from types import SimpleNamespace

from lorta.api.peft_adapter import PeftAdapter
from lorta.geometry import Geometry


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
