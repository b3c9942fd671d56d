"""TRL's trainers on a CPU: the same loss and gradients as with TRL's fused head, from positions with a label alone."""

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from experiments import preference, supervised
from experiments.labelled_positions import IGNORED, take_labelled_positions
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


@pytest.fixture
def make():
    def make(**given):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=96, **sizes, **given))
        add_fused_lm_head(model, outputs=OUTPUTS)
        return model

    return make


@pytest.fixture
def batch():
    ids = torch.arange(24).view(3, 8) % 96
    labels = ids.clone()
    labels[:, :5] = IGNORED  # prompts
    labels[2] = IGNORED  # an answer that is all cut off
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def both(make, batch):
    """Return TRL's output and ours, each with the gradient of the embeddings."""
    results = []
    for ours in (False, True):
        model = make()
        if ours:
            take_labelled_positions(model)
        out = model(**batch, fused_lm_head=True)
        out.log_probs.sum().backward()
        results.append((out, model.model.embed_tokens.weight.grad))
    return results


def test_scores_and_gradients_are_those_of_trl(make, batch):
    (theirs, their_gradient), (ours, our_gradient) = both(make, batch)
    for name in (*OUTPUTS, "label_mask", "loss"):
        assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6, msg=name)
    assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-6)


def test_a_batch_without_labels_has_a_gradient_of_zero(make, batch):
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    (_, _), (out, gradient) = both(make, batch)
    assert (out.loss.item(), gradient.abs().max().item()) == (0.0, 0.0)


class Softmax(TorchDispatchMode):
    """Counts the numbers that go through an exponential or a softmax over the vocabulary of 96."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.exp.default, torch.ops.aten._log_softmax.default) and args[0].shape[-1] == 96:
            self.numbers += args[0].numel()
        return func(*args, **(kwargs or {}))


def test_prompt_and_padding_are_not_scored(make, batch):
    def numbers(ours):
        model = make()
        if ours:
            take_labelled_positions(model)
        with Softmax() as counter:
            model(**batch, fused_lm_head=True).log_probs.sum().backward()
        return counter.numbers

    labels, positions = 2 * 3, 3 * 7
    assert numbers(ours=True) == 2 * labels * 96  # the softmax, and the entropy
    assert numbers(ours=False) >= 2 * positions * 96  # if TRL does better one day, this module can go


def test_without_the_word_the_model_answers_as_before(make, batch):
    plain, patched = make(), make()
    take_labelled_positions(patched)
    assert_close(patched(**batch).loss, plain(**batch).loss)
    ids = batch["input_ids"][:1]
    assert torch.equal(patched.generate(ids, max_new_tokens=3), plain.generate(ids, max_new_tokens=3))


def test_virtual_tokens_generate_as_before(make):
    """PEFT's generation with virtual tokens names no argument, so that transformers asks `forward` for them."""
    config = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    model = get_peft_model(make(), config).eval()
    ids = torch.arange(6)[None]
    before = model.generate(input_ids=ids, max_new_tokens=3, pad_token_id=0)
    take_labelled_positions(model.base_model)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=3, pad_token_id=0), before)


def test_a_mixture_of_experts_keeps_the_loss_of_its_routers(make):
    model = make(output_router_logits=True)
    before = model.forward
    take_labelled_positions(model)
    assert model.forward == before


@pytest.mark.parametrize("task", ["instruct", "dpo"])
def test_the_trainers_of_decoder_tasks_use_it(task, tmp_path, monkeypatch):
    seen = []
    for module in (supervised, preference):
        monkeypatch.setattr(module, "take_labelled_positions", lambda model: seen.append(type(model)))
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache")]
    few = ["trainer.max_steps=1", "data.max_train_samples=16", "data.max_eval_samples=4", "runtime.checks=false"]
    (spec,) = make_plan(["adapter=lora", "rank=2", f"task={task}", *few, *places], False, CONF).specs
    record = execute(spec)
    assert (record.status, seen) == ("success", [LlamaForCausalLM])
