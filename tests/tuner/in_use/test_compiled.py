"""torch.compile traces an adapted model as one graph, and gives eager's loss and gradients."""

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

from lorta.tuner import LortaConfig

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def adapted(backbone, randomise):
    def build(name, layers=1, **settings):
        task = "CAUSAL_LM" if name == "llama_lm" else "SEQ_CLS"
        config = LortaConfig(**{"r": 3, "alpha": 2.0, "task_type": task} | settings)
        return randomise(get_peft_model(backbone(name, num_hidden_layers=layers), config))

    return build


def loss_and_gradients(model, called, tokens, name):
    model.zero_grad()
    labels = tokens if name == "llama_lm" else torch.tensor([0, 1, 1])
    loss = called(input_ids=tokens, labels=labels).loss
    loss.backward()
    return loss.detach(), {key: value.grad for key, value in model.named_parameters() if value.requires_grad}


def same_as_eager(model, tokens, name, backend):
    expected = loss_and_gradients(model, model, tokens, name)
    compiled = torch.compile(model, backend=backend, fullgraph=True)  # a graph break is an error
    assert_close(loss_and_gradients(model, compiled, tokens, name), expected, **CLOSE)
    with torch.no_grad():  # a change of the weights in place is seen
        for key, value in model.named_parameters():
            if "lorta_head_dim" in key:
                value.mul_(2.0)
    expected = loss_and_gradients(model, model, tokens, name)
    assert_close(loss_and_gradients(model, compiled, tokens, name), expected, **CLOSE)


def test_a_compiled_model_has_no_graph_break_and_the_loss_and_gradients_of_eager(adapted, tokens):
    same_as_eager(adapted("llama_lm", layers=2).train(), tokens, "llama_lm", "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("order", ["4_way_per_matrix", "3_way_joint"])
def test_other_orders_and_feed_forward_targets_compile_too(adapted, tokens, order):
    targets = r".*\.(self_attn|mlp)\.\w+_proj"
    same_as_eager(adapted("llama_lm", order=order, target_modules=targets).train(), tokens, "llama_lm", "eager")


def test_switching_the_adapter_of_a_compiled_model_switches_its_output(adapted, randomise, tokens):
    model = adapted("llama_lm").eval()
    model.add_adapter("second", LortaConfig(r=2, alpha=2.0, task_type="CAUSAL_LM"))
    randomise(model, "second", seed=5)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for name in ("default", "second"):
            model.set_adapter(name)
            assert_close(compiled(input_ids=tokens).logits, model(tokens).logits)
        with model.disable_adapter():
            assert_close(compiled(input_ids=tokens).logits, model(tokens).logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "llama_lm"])
def test_inductor_gives_the_loss_and_gradients_of_eager(adapted, tokens, name):
    same_as_eager(adapted(name).train(), tokens, name, "inductor")
