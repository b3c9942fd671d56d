"""DPO begins at ln 2: no dropout of any form acts in training, and what moves the start all the same is a sentence."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoKrConfig, get_peft_model
from peft.tuners.boft.layer import MultiplicativeDropoutLayer
from torch import nn
from transformers import (
    AutoTokenizer,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from experiments.dropout import without_dropout
from experiments.preference import Reference, train_preference
from lorta.embedded import tasks
from lorta.training.context import DataSplits, TrainingContext
from tests.contract.backbones import adapter, backbone
from tests.training.test_trainer import settings

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = LlamaConfig(**SIZES, intermediate_size=64, attention_dropout=0.5)
FALCON = FalconConfig(**SIZES, attention_dropout=0.5, hidden_dropout=0.5)
GPT2 = GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5)
IDS = torch.arange(3, 15)[None]


def lokr(model):
    return get_peft_model(
        model, LoKrConfig(target_modules=["q_proj"], rank_dropout=0.5, module_dropout=0.5, init_weights=False)
    )


class Blocks(nn.Module):
    """Blocks some of which BOFT's dropout replaces by the identity."""

    def __init__(self):
        super().__init__()
        self.dropout = MultiplicativeDropoutLayer(p=0.5)

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.dropout(torch.zeros(1, 64, 2, 2)))


PLAIN = LlamaConfig(**SIZES, intermediate_size=64)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaForCausalLM(LLAMA),
        lambda: FalconForCausalLM(FALCON),
        lambda: GPT2LMHeadModel(GPT2),
        lambda: lokr(LlamaForCausalLM(PLAIN)),
        Blocks,
        lambda: nn.MultiheadAttention(32, 4, dropout=0.5),
    ],
    ids=["number", "configuration", "modules", "by adapter", "module of its own", "attention"],
)
def test_dropout_of_every_form_is_off_within_the_block_and_back_behind_it(make):
    torch.manual_seed(0)
    model = make().train()

    def output():
        if isinstance(model, nn.MultiheadAttention):
            rows = torch.ones(5, 1, 32)
            return model(rows, rows, rows, need_weights=False)[0]
        return model(input_ids=IDS).logits

    with torch.no_grad():
        assert not torch.equal(output(), output())
        with without_dropout(model):
            found = output()
            assert torch.equal(found, output())
            model.eval()
            assert torch.allclose(found, output(), atol=1e-5)
        model.train()
        assert not torch.equal(output(), output())


def first_loss(folder, disturb=None, **config):
    base = backbone("llama_lm")
    for name, value in config.items():
        for module in base.model.modules():
            if hasattr(module, name):
                setattr(module, name, value)
    tokenizer = AutoTokenizer.from_pretrained(tasks.FINGERPRINTS.with_name("weights") / "tiny_llama")
    base = replace(base, tokenizer=tokenizer)
    model = adapter("lora", task="dpo").attach(base, "CAUSAL_LM")
    if disturb is not None:
        disturb(model)
    rows = {"prompt_ids": [[3, 4, 5]] * 8, "chosen_ids": [[6, 7 + n] for n in range(8)], "rejected_ids": [[30, 31]] * 8}
    chosen = settings(max_steps=1, warmup_ratio=0.0)
    rows = Dataset.from_dict(rows)
    reference = Reference(None, is_start=True)
    context = TrainingContext(base, DataSplits(rows, rows), chosen, 0, folder)
    return train_preference(model, reference, context, lambda: 0.0, 0.5).history[0]["loss"]


def test_a_dropout_that_is_a_number_does_not_move_the_first_loss(tmp_path):
    assert first_loss(tmp_path, attention_dropout=0.5) == pytest.approx(math.log(2), abs=1e-6)


def test_a_start_that_is_not_the_reference_is_a_sentence(tmp_path):
    def disturb(model):
        def draw(module, arguments, output):
            return output + torch.randn_like(output) * module.training

        next(module for name, module in model.named_modules() if name.endswith("v_proj")).register_forward_hook(draw)

    with pytest.raises(ValueError, match=r"task=dpo: the first loss is 0\.\d+ and must be ln 2 = 0\.6931"):
        first_loss(tmp_path, disturb)
