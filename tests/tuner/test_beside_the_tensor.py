"""What LortaConfig takes over from LoraConfig beside the tensor: tokens, biases, names of lists of layers."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close
from tuner_backbones import batch, build_backbone

from lorta.tuner import LortaConfig, LortaLinear
from lorta.tuner.export import export_folder, export_model

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def trained(name, **settings):
    """A model after a step that moves all it trains."""
    torch.manual_seed(0)
    model = get_peft_model(build_backbone(name), LortaConfig(r=3, **settings)).train()
    model.base_model.lorta_head_dim["default"].data.normal_()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(**batch(name)).logits.square().mean().backward()
    optimizer.step()
    return model.eval()


def logits(model, name):
    with torch.no_grad():
        return model(**batch(name)).logits


@pytest.mark.parametrize("indices", [[3, 5, 11], {"embed_tokens": [3, 5, 11]}])
def test_chosen_tokens_are_trained_saved_merged_and_exported(tmp_path, indices):
    name = "llama_lm"
    model, plain = trained(name, trainable_token_indices=indices, task_type="CAUSAL_LM"), build_backbone(name)
    expected = logits(model, name)
    model.save_pretrained(tmp_path / "lorta")
    assert_close(logits(PeftModel.from_pretrained(build_backbone(name), tmp_path / "lorta").eval(), name), expected)
    export_model(model, tmp_path / "lora")
    assert_close(
        logits(PeftModel.from_pretrained(build_backbone(name), tmp_path / "lora").eval(), name), expected, **CLOSE
    )
    merged = model.merge_and_unload()
    assert_close(logits(merged, name), expected, **CLOSE)
    moved = (merged.get_input_embeddings().weight != plain.get_input_embeddings().weight).any(dim=1)
    assert set(moved.nonzero().flatten().tolist()) <= {3, 5, 11}
    assert moved.any()


@pytest.mark.parametrize(("bias", "everywhere"), [("all", True), ("lorta_only", False)])
def test_biases_are_trained_saved_and_exported(tmp_path, bias, everywhere):
    name = "roberta"
    model, plain = trained(name, bias=bias, task_type="SEQ_CLS"), build_backbone(name).state_dict()
    expected = logits(model, name)
    model.save_pretrained(tmp_path / "lorta")
    assert_close(logits(PeftModel.from_pretrained(build_backbone(name), tmp_path / "lorta").eval(), name), expected)
    export_model(model, tmp_path / "lora")
    assert_close(
        logits(PeftModel.from_pretrained(build_backbone(name), tmp_path / "lora").eval(), name), expected, **CLOSE
    )
    build_backbone(name).config.save_pretrained(tmp_path / "base")
    export_folder(tmp_path / "lorta", tmp_path / "again", tmp_path / "base")
    assert_close(
        logits(PeftModel.from_pretrained(build_backbone(name), tmp_path / "again").eval(), name), expected, **CLOSE
    )
    merged = model.merge_and_unload().state_dict()
    moved = {path for path in plain if path.endswith(".bias") and not torch.equal(plain[path], merged[path])}
    moved = {path for path in moved if not path.startswith("classifier")}
    adapted = {path for path in moved if "attention.self" in path or "attention.output.dense" in path}
    assert len(adapted) == 4 * 3
    assert (moved > adapted) == everywhere


def test_two_adapters_with_biases_are_refused_by_peft():
    model = trained("roberta", bias="all")
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("second", LortaConfig(r=2, bias="all"))


@pytest.mark.parametrize("pattern", ["layer", ["layer"], ["h", "layer"]])
def test_a_list_of_layers_is_named(pattern):
    model = trained("roberta", layers_to_transform=[1], layers_pattern=pattern)
    paths = [path for path, module in model.named_modules() if isinstance(module, LortaLinear)]
    assert len(paths) == 4
    assert all(".layer.1." in path for path in paths)


def test_a_name_that_no_list_of_layers_has_targets_nothing():
    with pytest.raises(ValueError, match="layers_pattern"):
        trained("roberta", layers_to_transform=[1], layers_pattern="blocks")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank_pattern": {"query": 4}}, "rank_pattern must stay unset: all projections share"),
        ({"alpha_pattern": {"query": 4}}, "alpha_pattern must stay unset: all projections share"),
        ({"layers_pattern": "layer"}, "set both or neither"),
        ({"bias": "lora_only"}, "bias must be one of none, all, lorta_only; got 'lora_only'"),
    ],
)
def test_what_lorta_cannot_have_is_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        LortaConfig(**settings)
