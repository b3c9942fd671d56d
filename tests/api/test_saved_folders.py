"""A saved adapter says what a process needs beside PEFT to read it as it was trained."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from baselines.peft_methods.prompt_tuning import read_behind_prompt
from lorta.config.instantiate import build
from lorta.config.places import CONF, ROOT
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "position_buckets": 8,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
}
NAMES = sorted(file.stem for file in (CONF / "adapter").glob("*.yaml"))
HOOKS = (
    "baselines.peft_methods.prompt_tuning.",
    "baselines.peft_methods.boft.",
    "baselines.loretta.tensor_train.compress_head",
)


def settings(name: str) -> dict:
    return yaml.safe_load((CONF / "adapter" / f"{name}.yaml").read_text())


def deberta() -> DebertaV2ForSequenceClassification:
    torch.manual_seed(0)
    return DebertaV2ForSequenceClassification(DebertaV2Config(**SHAPE)).eval()


CONFIGS = {
    "prompt_tuning": {"_target_": "peft.PromptTuningConfig", "num_virtual_tokens": 4},
    "boft": {"_target_": "peft.BOFTConfig", "boft_block_size": 8, "boft_n_butterfly_factor": 2},
}


def save(name: str, folder: Path) -> torch.Tensor:
    """Write an adapter on the tiny DeBERTa, and return what its model says of some tokens."""
    adapter, model = build(settings(name) | {"config": CONFIGS[name]}), deberta()
    no_tokenizer: Any = None
    attached = adapter.attach(
        Backbone(model, no_tokenizer, Geometry.from_config(model.config.to_dict())), "SEQ_CLS"
    ).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in (weight for weight in attached.parameters() if weight.requires_grad):
            weight.add_(0.1 * torch.randn_like(weight))
    adapter.save(attached, folder)
    return logits(attached)


@pytest.fixture
def saved(tmp_path):
    """The folder of a prompt, and what its model says of some tokens."""
    expected = save("prompt_tuning", tmp_path)
    return tmp_path, expected


def logits(model) -> torch.Tensor:
    tokens = torch.arange(12).view(2, 6)
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


def test_a_prompt_says_what_plain_peft_gets_wrong_and_that_is_right(saved):
    from peft import PeftModel

    folder, expected = saved
    said = (folder / "README.md").read_text()
    assert "## Loading" in said
    assert "call `baselines.peft_methods.prompt_tuning.read_behind_prompt(model)`" in said
    plain = PeftModel.from_pretrained(deberta(), folder).eval()
    assert (logits(plain) - expected).abs().max() > 1e-4  # in silence
    read_behind_prompt(plain)
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=1e-6)


READER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

root = sys.argv[1]
tokens = torch.arange(12).view(2, 6)

def off(name, after=lambda model: None):
    base = AutoModelForSequenceClassification.from_pretrained(f"{root}/base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, f"{root}/{name}").eval()
    after(model)
    with torch.no_grad():
        said = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return (said - torch.load(f"{root}/{name}.pt")).abs().max().item()

found = {"prompt_tuning": [off("prompt_tuning")]}
try:
    found["boft"] = [off("boft")]
except RuntimeError as error:
    found["boft"] = ["size mismatch" in str(error)]
assert not any(name.startswith(("lorta", "baselines")) for name in sys.modules)
from baselines.peft_methods.boft import use_plain_torch
from baselines.peft_methods.prompt_tuning import read_behind_prompt
use_plain_torch(None, {})
found["boft"].append(off("boft"))
found["prompt_tuning"].append(off("prompt_tuning", read_behind_prompt))
print(json.dumps(found))
"""


def test_a_process_with_peft_alone_needs_what_the_folders_of_boft_and_prompts_say(tmp_path):
    """Issue 17, C18: PEFT alone refuses the one and misreads the other in silence; with the calls both are exact."""
    deberta().save_pretrained(tmp_path / "base")
    for name in CONFIGS:
        torch.save(save(name, tmp_path / name), tmp_path / f"{name}.pt")
        assert settings(name)["load_with"] in (tmp_path / name / "README.md").read_text()
    assert "call `baselines.peft_methods.boft.use_plain_torch(None, {})` before" in settings("boft")["load_with"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["prompt_tuning"][0] > 1e-4
    assert found["boft"][0] is True or found["boft"][0] < 1e-6  # exact where PEFT's CUDA extension could be built
    assert max(found["prompt_tuning"][1], found["boft"][1]) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_every_method_that_changes_how_peft_reads_says_so(name):
    node = settings(name)
    hooks = [node.get(hook) or "" for hook in ("prepare", "finish")]
    changed = [hook for hook in hooks if hook.startswith(HOOKS)]
    assert bool(changed) == ("load_with" in node)
    assert all(hook.rpartition(".")[2] in node["load_with"] for hook in changed)


def test_a_method_that_peft_lacks_names_its_import(tmp_path):
    lorta = build(settings("lorta") | {"rank": 2, "config": {"_target_": "lorta.tuner.LortaConfig", "r": 2}})
    assert lorta.loading_needs()[0] == "`import lorta.tuner` registers it with PEFT."
    lora = build(settings("lora") | {"rank": 2, "config": {"_target_": "peft.LoraConfig", "r": 2}})
    assert lora.loading_needs() == []


def test_every_method_with_a_need_stands_in_the_docs():
    page = (CONF.parent / "docs" / "integrations.md").read_text()
    assert [name for name in NAMES if "load_with" in settings(name) and f"`{name}`" not in page] == []
