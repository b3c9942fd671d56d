import json
import os
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from lorta.tuner import LortaConfig

RELOAD = """
import sys, json, torch
from transformers import AutoModelForSequenceClassification
from peft import PeftModel
import lorta.tuner
base = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
print(json.dumps(model(torch.tensor(json.loads(sys.argv[3]))).logits.tolist()))
"""


@pytest.fixture
def trained(backbone, randomise):
    """An adapter on key, query and value, whose order in a set moves with the hash seed, at another rank each call."""

    def build(name="roberta", r=3):
        targets = {"query", "value", "key"} if name == "roberta" else None
        config = LortaConfig(r=r, alpha=2.0, target_modules=targets, task_type="SEQ_CLS")
        return randomise(get_peft_model(backbone(name), config))

    return build


def test_a_new_process_gives_the_same_logits_under_every_hash_seed(trained, backbone, tokens, tmp_path):
    backbone("roberta").save_pretrained(tmp_path / "base")
    model = trained()
    model.save_pretrained(tmp_path / "adapter")
    command = [sys.executable, "-c", RELOAD, tmp_path / "base", tmp_path / "adapter", json.dumps(tokens.tolist())]
    children = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        )
        for seed in ("0", "1", "4242")
    ]
    for child in children:
        logits = torch.tensor(json.loads(child.communicate(timeout=300)[0].splitlines()[-1]))
        assert_close(logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "llama"])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_reloaded_adapter_is_exact_and_frozen(trained, backbone, tokens, tmp_path, name, low_cpu_mem_usage):
    model = trained(name)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone(name), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert not any(p.requires_grad for key, p in again.named_parameters() if "lorta_" in key)


def test_a_reloaded_adapter_can_be_trained_on(trained, backbone, tmp_path):
    trained().save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta"), tmp_path, is_trainable=True)
    assert sum(p.requires_grad for key, p in again.named_parameters() if "lorta_" in key) == 5


def test_a_float32_adapter_is_not_rounded_by_loading_it_on_a_bfloat16_base(trained, backbone, tmp_path):
    model = trained()
    model.save_pretrained(tmp_path)
    base = backbone("roberta").to(torch.bfloat16)
    again = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(again.base_model.lorta_hidden["default"], model.base_model.lorta_hidden["default"])


def test_a_second_adapter_is_loaded_beside_the_first(trained, tokens, tmp_path):
    first, second = trained(r=2), trained(r=5)
    second.save_pretrained(tmp_path)
    expected = first(tokens).logits
    first.load_adapter(str(tmp_path), adapter_name="second")
    assert torch.equal(first(tokens).logits, expected)
    first.set_adapter("second")
    assert_close(first(tokens).logits, second(tokens).logits)


def test_trainer_restores_the_best_checkpoint_and_not_the_last(backbone, tokens, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(backbone("roberta"), LortaConfig(r=3, task_type="SEQ_CLS"))
    rows = [{"input_ids": row, "labels": label} for row, label in zip(tokens, (0, 1, 1), strict=True)]
    settings = TrainingArguments(
        str(tmp_path),
        learning_rate=0.2,  # far too high, so that the loss rises again
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, settings, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert min(losses) < losses[-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


def test_the_file_holds_every_factor_once_and_nothing_else(backbone, tmp_path):
    model = get_peft_model(backbone("roberta"), LortaConfig(r=3))  # no task type: no head is saved
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    modes = ("hidden", "head_dim", "heads", "layers", "matrices")
    assert set(weights) == {f"base_model.lorta_{mode}" for mode in modes}
    parameters = sum(weight.numel() for weight in weights.values())
    assert parameters == 3 * (24 + 6 + 4 + 3 + 4)
    assert sum(file.stat().st_size for file in tmp_path.glob("adapter_model*")) <= 4 * parameters + 2048


def test_the_saved_config_says_what_the_rows_stand_for(trained, tmp_path):
    trained().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["geometry"] == {
        "hidden": 24,
        "head_dim": 6,
        "heads": 4,
        "kv_heads": 4,
        "layers": [0, 1, 2],
        "roles": ["q", "k", "v"],
    }


def test_an_adapter_is_refused_by_a_model_of_another_geometry(trained, backbone, tmp_path):
    trained().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="belongs to another model or other targets"):
        PeftModel.from_pretrained(backbone("roberta", num_hidden_layers=2), tmp_path)
