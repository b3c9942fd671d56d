"""Adapters that are trained in one batch learn what each learns alone, but for rounding."""

import pytest
from transformers import BertConfig, BertModel

from benchmarks.step_subjects import WITHOUT_DROPOUT
from benchmarks.together import stacked_adapters

SMALL = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **WITHOUT_DROPOUT)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(stacked_adapters.SHAPES, "small", (lambda: BertModel(SMALL), (4, 6)))


@pytest.mark.parametrize("method", stacked_adapters.STACKS)
def test_an_adapter_of_a_stack_learns_what_it_learns_alone(method):
    assert stacked_adapters.difference(method, "small", 3) < 1e-2


@pytest.mark.parametrize("method", stacked_adapters.STACKS)
def test_adapters_of_a_stack_follow_their_own_learning_rates(method):
    step, trained = stacked_adapters.stacked_step(method, "small", 2)
    for _ in range(3):
        step()
    assert all(not tensor[0].equal(tensor[1]) for tensor in trained)
