"""Dotted paths lead to code, also those of before."""

import importlib

import pytest

import baselines
from lorta.config.instantiate import resolve
from lorta.config.moved import MOVED


@pytest.mark.parametrize("before", MOVED)
def test_classes_of_before_are_where_the_code_is(before):
    assert resolve(before) is resolve(MOVED[before])


@pytest.mark.parametrize("before", baselines.MOVED)
def test_methods_are_one_module_under_both_names(before):
    now = importlib.import_module(f"baselines.{baselines.MOVED[before]}")
    own = now.__spec__
    assert importlib.import_module(f"baselines.{before}") is now
    assert now.__spec__ is own and now.__name__ == f"baselines.{baselines.MOVED[before]}"
    assert resolve(f"baselines.{before}.__doc__") == now.__doc__
