"""Every adapter on every architecture does what the plan says: it attaches, or it cannot for the reason given."""

from functools import cache

import peft
import pytest
import torch
from torch.testing import assert_close

from lorta.geometry import ModelContext
from lorta.training.metering import count_parameters, is_head
from tests.contract.backbones import ADAPTERS, adapter
from tests.contract.families import FAMILIES, build_family, family_logits, geometry_of, tokens, with_whole_modules

PAIRS = [(family, "SEQ_CLS") for family in FAMILIES] + [("gpt2", "CAUSAL_LM")]
FAILURES = (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError)


@pytest.fixture(autouse=True)
def cheap_test(one_thread):
    """Small sums take longer on two threads."""


@pytest.fixture(autouse=True)
def no_model_card(monkeypatch):
    """PEFT compiles a template for every card: a third of a test's time."""
    monkeypatch.setattr(peft.PeftModel, "create_or_update_model_card", lambda *_: None)


@cache
def expected(family, task_type):
    return family_logits(build_family(family, task_type).model)


def planned(family, task_type, name):
    """The method on the family's modules, and the plan's reason why it cannot attach, or None."""
    method = with_whole_modules(adapter(name), geometry_of(family))
    return method, method.unsupported(ModelContext(geometry_of(family), task_type))


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(("family", "task_type"), PAIRS)
def test_an_adapter_attaches_as_planned_and_is_read_back(family, task_type, name, tmp_path):
    method, reason = planned(family, task_type, name)
    if reason:
        assert_fails_or_trains_no_bias(method, reason, family, task_type)
        return
    geometry = geometry_of(family)
    model = method.attach(build_family(family, task_type), task_type)
    count, counted = method.parameters(geometry), count_parameters(model, geometry.architecture).adapter
    assert count in (counted, None)
    if method.identity_at_start:
        assert_close(family_logits(model), expected(family, task_type), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))
    trained = family_logits(model)
    method.save(model, tmp_path)
    again = with_another_head(build_family(family, task_type))
    torch.manual_seed(0)
    assert_close(family_logits(method.load(again, task_type, tmp_path)), trained, atol=1e-4, rtol=1e-4)


def assert_fails_or_trains_no_bias(method, reason, family, task_type):
    """The refused pair cannot take one step; methods for biases can, with nothing or with biases of their own."""
    if method.name in ("bitfit", "beft") and "biases" in reason:
        assert geometry_of(family).architecture.biases is False
        return
    with pytest.raises(FAILURES):
        labels = torch.tensor([0, 1, 0, 1]) if task_type == "SEQ_CLS" else tokens()
        method.attach(build_family(family, task_type), task_type)(input_ids=tokens(), labels=labels).loss.backward()


def with_another_head(backbone):
    """The backbone of a new process, whose head was drawn again."""
    with torch.no_grad():
        for path, weight in backbone.model.named_parameters():
            if is_head(path, backbone.geometry.architecture):
                weight.normal_()
    return backbone


@pytest.mark.parametrize(("family", "weights"), [("gpt2", 320), ("gpt_neox", 320), ("t5", 7 * 32), ("qwen3", 224)])
def test_ln_tuning_counts_and_trains_all_norms(family, weights):
    method = adapter("ln_tuning")
    model = method.attach(build_family(family), "SEQ_CLS")
    assert method.parameters(geometry_of(family)) == weights
    assert count_parameters(model, geometry_of(family).architecture).adapter == weights


def test_lokr_refuses_ranks_that_make_the_adapter_of_a_lower_one():
    context = ModelContext(geometry_of("llama"))  # 8 x 8 and smaller factors: from rank 4 on they are whole
    assert [adapter("lokr", rank).unsupported(context) is None for rank in (4, 8, 9, 16, 32)] == [True, True] + 3 * [
        False
    ]
