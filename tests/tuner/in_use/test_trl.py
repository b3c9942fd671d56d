"""TRL's trainers take a LortaConfig as they take any PEFT configuration."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from tiny_tokenizer import tiny_tokenizer
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lorta.tuner import LortaConfig

ADAPTER = {"r": 3, "alpha": 6.0, "task_type": "CAUSAL_LM"}
COMMON = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,  # all rows in each step
    "learning_rate": 0.05,
    "logging_steps": 1,
    "save_steps": 3,
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def texts():
    return Dataset.from_list([{"text": f"w{n} w{n + 1} w{n + 2} w{n + 3}"} for n in range(4)])


def preferences():
    return Dataset.from_list(
        [{"prompt": f"w{n} w{n + 1}", "chosen": f" w{n + 2} w{n + 3}", "rejected": f" w{n + 9}"} for n in range(4)]
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_and_name_what_moved(trainer):
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    return {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}


def factor_names(model):
    return {name for name in model.state_dict() if "lorta_" in name}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sft_trainer_moves_the_factors_alone_and_its_checkpoint_reloads(
    backbone, tokens, tokenizer, tmp_path, checkpointing
):
    settings = SFTConfig(str(tmp_path), **COMMON | {"gradient_checkpointing": checkpointing})
    trainer = SFTTrainer(
        backbone("llama_lm"),
        settings,
        train_dataset=texts(),
        processing_class=tokenizer,
        peft_config=LortaConfig(**ADAPTER),
    )
    moved = train_and_name_what_moved(trainer)
    assert moved == factor_names(trainer.model) and len(moved) == 5
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.model.eval()
    again = PeftModel.from_pretrained(backbone("llama_lm"), tmp_path / "checkpoint-3").eval()
    assert_close(again(tokens).logits, trainer.model(tokens).logits)
    assert not torch.allclose(again(tokens).logits, backbone("llama_lm")(tokens).logits, atol=0.01)


def test_dpo_trainer_begins_at_log_2_against_the_disabled_adapter(backbone, tokens, tokenizer, tmp_path):
    trainer = DPOTrainer(
        backbone("llama_lm"),
        args=DPOConfig(str(tmp_path), **COMMON),
        train_dataset=preferences(),
        processing_class=tokenizer,
        peft_config=LortaConfig(**ADAPTER),
    )
    assert trainer.ref_model is None
    moved = train_and_name_what_moved(trainer)
    assert moved == factor_names(trainer.model) and len(moved) == 5
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(trainer)[-1] < math.log(2) - 1e-3
    trainer.model.eval()
    again = PeftModel.from_pretrained(backbone("llama_lm"), tmp_path / "checkpoint-3").eval()
    assert_close(again(tokens).logits, trainer.model(tokens).logits)


def test_sft_trainer_trains_lorta_on_a_4_bit_base(backbone, tokenizer, tmp_path):
    """TRL casts the adapter of a quantised base to bfloat16."""
    backbone("llama_lm", hidden_size=64, head_dim=16, intermediate_size=64).save_pretrained(tmp_path / "base")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=settings),
        SFTConfig(str(tmp_path), **COMMON | {"gradient_checkpointing": True, "learning_rate": 0.02}),
        train_dataset=texts(),
        processing_class=tokenizer,
        peft_config=LortaConfig(**ADAPTER),
    )
    trained = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trained.values()} == {torch.bfloat16}
    moved = train_and_name_what_moved(trainer)
    assert moved == factor_names(trainer.model) == set(trained)
    assert losses(trainer)[-1] < losses(trainer)[0]


@pytest.fixture
def loaded(backbone, randomise, tmp_path):
    """A trainable PeftModel with an adapter that is not zero, as it comes from supervised fine-tuning."""
    randomise(get_peft_model(backbone("llama_lm"), LortaConfig(**ADAPTER | {"alpha": 0.3}))).save_pretrained(tmp_path)
    return PeftModel.from_pretrained(backbone("llama_lm"), tmp_path, is_trainable=True)


def test_dpo_of_a_loaded_adapter_refers_to_a_copy_of_it(loaded, tokenizer, tmp_path):
    trainer = DPOTrainer(
        loaded, args=DPOConfig(str(tmp_path / "dpo"), **COMMON), train_dataset=preferences(), processing_class=tokenizer
    )
    moved = train_and_name_what_moved(trainer)
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert moved == {name for name in factor_names(trainer.model) if ".default" in name} and len(moved) == 5
