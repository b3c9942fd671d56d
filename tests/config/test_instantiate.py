"""Dotted paths lead to code, also those of before."""

import pytest

from lorta.config.instantiate import resolve
from lorta.config.moved import MOVED, MOVED_MODULES, present_path


@pytest.mark.parametrize("before", [*MOVED, *(f"{module}.__doc__" for module in MOVED_MODULES)])
def test_paths_of_before_lead_to_where_the_code_is(before):
    assert present_path(before) != before
    assert resolve(before) is not None


def test_a_path_that_never_moved_stays():
    assert present_path("lorta.api.peft_adapter.PeftAdapter") == "lorta.api.peft_adapter.PeftAdapter"
