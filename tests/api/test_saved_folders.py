"""A saved adapter says what a process needs beside PEFT to read it as it was trained."""

import pytest
import torch
import yaml
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from baselines.peft_methods.prompt_tuning import read_behind_prompt
from lorta.config.instantiate import build
from lorta.config.places import CONF
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


@pytest.fixture
def saved(tmp_path):
    """The folder of a prompt, and what its model says of some tokens."""
    node = settings("prompt_tuning") | {"config": {"_target_": "peft.PromptTuningConfig", "num_virtual_tokens": 4}}
    adapter, model = build(node), deberta()
    attached = adapter.attach(Backbone(model, None, Geometry.from_config(model.config.to_dict())), "SEQ_CLS").eval()
    adapter.save(attached, tmp_path)
    return tmp_path, logits(attached)


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
