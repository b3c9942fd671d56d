"""On a bf16 base everything that is trained is float32: it moves, and is read back as it was."""

import pytest
import torch
from torch import nn

from lorta.config.places import CONF
from lorta.geometry import ModelContext
from lorta.peft_extension.trained_in_float32 import hold_in_float32
from lorta.planning.planner import make_plan
from lorta.training.metering import is_head, require_float32, trained_tensors
from tests.contract.backbones import ADAPTERS, adapter
from tests.contract.families import build_family, family_logits, geometry_of, tokens

TRAIN_THE_BASE = {"full", "bitfit", "dst", "pela"}


@pytest.fixture(autouse=True)
def cheap_test(one_thread):
    """Small sums take longer on two threads."""


def rounded_base(family, task_type):
    base = build_family(family, task_type)
    base.model.to(torch.bfloat16)
    return base


@pytest.mark.parametrize("name", ADAPTERS)
def test_all_that_an_adapter_trains_is_float32_or_the_plan_refuses(name):
    method = adapter(name)
    reason = method.unsupported(ModelContext(geometry_of("roberta"), dtype="bf16"))
    assert bool(reason) == (name in TRAIN_THE_BASE)
    if reason:
        assert "set model.dtype=fp32" in reason
        return
    model = method.attach(rounded_base("roberta", "SEQ_CLS"), "SEQ_CLS")
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", ["ln_tuning", "loretta_rep", "lora", "head_only"])
@pytest.mark.parametrize(("family", "task_type"), [("roberta", "SEQ_CLS"), ("llama", "CAUSAL_LM")])
def test_every_trained_tensor_moves_and_is_read_back(family, task_type, name, autocast, tmp_path):
    if (name, task_type) == ("head_only", "CAUSAL_LM"):
        pytest.skip("there is no head")
    method, head = adapter(name), geometry_of(family).architecture
    model = method.attach(rounded_base(family, task_type), task_type).train()
    before = trained_tensors(model)
    named = [(weight, is_head(path, head)) for path, weight in model.named_parameters() if weight.requires_grad]
    rates = {True: method.head_learning_rate, False: method.learning_rate}
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": rates[in_head]} for weight, in_head in named])
    labels = torch.tensor([0, 1, 0, 1]) if task_type == "SEQ_CLS" else tokens()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(input_ids=tokens(), attention_mask=torch.ones_like(tokens()), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = trained_tensors(model)
    assert [path for path in before if after[path] == before[path]] == []
    method.save(model, tmp_path)
    torch.manual_seed(0)
    again = method.load(rounded_base(family, task_type), task_type, tmp_path)
    assert torch.equal(family_logits(again), family_logits(model))


def test_a_module_in_float32_gives_what_it_was_given_and_a_head_float32():
    rows = torch.randn(2, 4, dtype=torch.bfloat16)
    assert hold_in_float32(norm := nn.LayerNorm(4, dtype=torch.bfloat16))
    assert (norm.weight.dtype, norm(rows).dtype, norm(rows.float()).dtype) == (torch.float32, rows.dtype, torch.float32)
    assert hold_in_float32(head := nn.Linear(4, 2, dtype=torch.bfloat16), keeps_float32=True)
    assert head(rows).dtype == torch.float32
    assert not hold_in_float32(nn.Linear(4, 2))


def test_a_method_that_trains_rounded_weights_all_the_same_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"adapter=mine trains 2 of its 4 tensors in torch.bfloat16.*model.dtype=fp32"):
        require_float32(model, "mine")
    model[1].requires_grad_(False)
    require_float32(model, "mine")


@pytest.mark.parametrize(("name", "refused"), [("full", 1), ("bitfit", 1), ("ln_tuning", 0)])
def test_the_plan_knows_the_dtype(name, refused):
    plan = make_plan([f"adapter={name}", "model.dtype=bf16"], False, CONF)
    assert (len(plan.unsupported), plan.problems) == (refused, ())
