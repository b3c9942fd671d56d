import json
import os
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.testing import assert_close

from lorta.tuner import LortaConfig

RELOAD = """
import sys, json, pathlib, torch
from transformers import AutoModelForSequenceClassification
from peft import PeftModel
import lorta.tuner
logits = {}
for name, rows in json.loads(sys.argv[2]).items():
    folder = pathlib.Path(sys.argv[1], name)
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base").eval()
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    logits[name] = model(torch.tensor(rows)).logits.tolist()
print(json.dumps(logits))
"""


@pytest.fixture
def trained(backbone, randomise):
    """An adapter on key, query and value, whose order in a set moves with the hash seed, at another rank each call."""

    def build(name="roberta", r=3):
        targets = {"query", "value", "key"} if name == "roberta" else None
        config = LortaConfig(r=r, alpha=2.0, target_modules=targets, task_type="SEQ_CLS")
        return randomise(get_peft_model(backbone(name), config))

    return build


def test_a_new_process_gives_the_same_logits_under_every_hash_seed(trained, backbone, inputs, tmp_path):
    rows = {name: inputs(name)["input_ids"] for name in ("roberta", "llama", "gpt2", "gpt_neox", "t5", "esm")}
    expected = {}
    for name, tokens in rows.items():
        backbone(name).save_pretrained(tmp_path / name / "base")
        model = trained(name)
        model.save_pretrained(tmp_path / name / "adapter")
        expected[name] = model(tokens).logits
    sent = json.dumps({name: tokens.tolist() for name, tokens in rows.items()})
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RELOAD, tmp_path, sent],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        )
        for seed in ("0", "1", "4242")
    ]
    for child in children:
        found = json.loads(child.communicate(timeout=300)[0].splitlines()[-1])
        for name, logits in expected.items():
            assert_close(torch.tensor(found[name]), logits, rtol=1e-5, atol=1e-5, msg=name)


SAVED = {
    "5_way": {"hidden", "head_dim", "heads", "layers", "matrices"},
    "4_way_per_matrix": {"hidden", "head_dim", "heads", "layers"},
    "4_way_per_layer": {"hidden", "head_dim", "heads", "matrices"},
    "3_way_joint": {"hidden", "head_dim", "slices"},
    "3_way_per_matrix": {"hidden", "head_dim", "slices"},
}


@pytest.mark.parametrize("order", SAVED)
@pytest.mark.parametrize("feedforward", [False, True])
def test_the_file_holds_every_factor_once_and_nothing_else(backbone, tmp_path, order, feedforward):
    targets = ["query", "value", "intermediate.dense"] if feedforward else None
    model = get_peft_model(
        backbone("roberta"), LortaConfig(r=3, order=order, target_modules=targets)
    )  # no head is saved
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    own = {f"feedforward_{name}" for name in SAVED[order] & {"head_dim", "heads", "slices"} if feedforward}
    assert set(weights) == {f"base_model.lorta_{name}" for name in SAVED[order] | own}
    parameters = sum(weight.numel() for weight in weights.values())
    assert parameters == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert sum(file.stat().st_size for file in tmp_path.glob("adapter_model*")) <= 4 * parameters + 2048


@pytest.mark.parametrize("order", SAVED)
def test_an_adapter_of_every_order_is_read_as_it_was_written(backbone, tokens, randomise, tmp_path, order):
    model = randomise(get_peft_model(backbone("roberta"), LortaConfig(r=3, order=order, scaling="alpha")))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta"), tmp_path)
    assert torch.equal(again(tokens).logits, model(tokens).logits)


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
