"""Every adapter that a decoder takes is compared with the backbone in DPO, whatever it does to it."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from experiments.preference import PreferenceTrainer, base_scores, pair_scores, quiet, reference_for
from lorta.embedded import tasks
from tests.contract.backbones import ADAPTERS, adapter, attach, backbone, unsupported

PADDING = 2
ROWS = Dataset.from_list(
    [{"prompt_ids": [3, 4 + n], "chosen_ids": [10 + n, 11, 12], "rejected_ids": [30, 31 + n]} for n in range(4)]
)
NOT_REVERSIBLE = {"pela", "kasa"}  # change the backbone for good and begin as something else: the plan refuses them


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tasks.FINGERPRINTS.with_name("weights") / "tiny_llama")


@pytest.fixture(scope="module")
def untouched():
    return base_scores(backbone("llama_lm").model, PADDING, ROWS, 4, "fp32")


@pytest.mark.parametrize("name", sorted({*ADAPTERS} - NOT_REVERSIBLE))
def test_the_first_loss_is_log_2_exactly_where_the_adapter_begins_as_the_backbone(name, tokenizer, untouched, tmp_path):
    method = adapter(name, task="dpo")
    if sentence := unsupported(method, "llama_lm"):
        pytest.skip(sentence)
    model = attach(method, "llama_lm")
    reference = reference_for(model, PADDING, ROWS, untouched, "fp32")
    assert reference.is_start == (method.identity_at_start or reference.model is not None)
    config = DPOConfig(str(tmp_path), **quiet(model), beta=0.5, max_length=None, report_to=[], use_cpu=True, bf16=False)
    trainer = PreferenceTrainer(model, reference, args=config, train_dataset=ROWS, processing_class=tokenizer)
    batch = DataCollatorForPreference(PADDING, max_length=None)(list(ROWS))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.train(), batch).item()
    expected = -sum(math.log(1 / (1 + math.exp(-0.5 * margin))) for margin in margins(model, untouched)) / len(ROWS)
    assert loss == pytest.approx(expected, abs=1e-4)  # the reference is the backbone
    assert (abs(loss - math.log(2)) < 1e-6) == method.identity_at_start


def margins(model, untouched):
    """By how much more the model prefers each chosen answer than the backbone did, in nats."""
    found = pair_scores(model, PADDING, ROWS, 4)
    sums = [
        [pair.chosen.log_probability - pair.rejected.log_probability for pair in pairs]
        for pairs in (found, untouched.pairs)
    ]
    return [now - before for now, before in zip(*sums, strict=True)]


@pytest.mark.parametrize("name", sorted(NOT_REVERSIBLE))
def test_the_plan_knows_what_can_neither_be_switched_off_nor_begins_as_the_backbone(name):
    method = adapter(name, task="dpo")
    assert not method.reversible
    assert not method.identity_at_start


@pytest.mark.parametrize("name", ["pela"])
def test_what_can_neither_be_switched_off_nor_begins_as_the_backbone_is_refused(name, untouched):
    with pytest.raises(ValueError, match="no reference"):
        reference_for(attach(adapter(name, task="dpo"), "llama_lm"), PADDING, ROWS, untouched, "fp32")


@pytest.mark.parametrize(("name", "copied"), [("lorta", False), ("pissa", True), ("full", True)])
def test_the_backbone_is_copied_only_where_nothing_can_be_switched_off(name, copied, untouched):
    reference = reference_for(attach(adapter(name, task="dpo"), "llama_lm"), PADDING, ROWS, untouched, "fp32")
    assert reference.is_start
    assert (reference.model is not None) == copied
    assert reference.model is None or not any(weight.requires_grad for weight in reference.model.parameters())
