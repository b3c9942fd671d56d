"""Values that no method can use, and some that only look so."""

import pytest

from lorta.config.ranges import range_problems


@pytest.mark.parametrize("node", [{"r": 0}, {"r": 2.5}, {"lora_dropout": 1.0}, {"dropout": float("nan")}, {"alpha": 0}])
def test_values_that_no_method_can_use(node):
    assert len(range_problems(node)) == 1


@pytest.mark.parametrize(
    "node", [{"r": 0, "oft_block_size": 32}, {"hybrid_r": 0}, {"r": [4, 8]}, {"lora_dropout": 0.0}]
)
def test_values_that_some_method_has(node):
    assert range_problems(node) == []
