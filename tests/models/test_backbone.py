"""A decoder is loaded in the precision and the number of bits that its settings say; rows fit a model's positions."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lorta.config.places import CONF
from lorta.config.settings import ModelSettings
from lorta.embedded import tasks
from lorta.models import locate
from lorta.models.backbone import load_causal_lm
from lorta.models.locate import find_model, most_tokens
from lorta.planning.planner import make_plan
from lorta.runner.execute import execute
from lorta.training.metering import weights_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of random weights with the embedded tokenizer, without a padding token."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(tasks.FINGERPRINTS.with_name("weights") / "tiny")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def settings(folder, quantization=None):
    return ModelSettings(
        name="custom",
        path=str(folder),
        hub_id=None,
        revision=None,
        data="embedded",
        dtype="fp32",
        quantization=quantization,
        gradient_checkpointing=False,
    )


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_are_held_in_the_dtype_asked_for(folder, dtype, expected):
    model = load_causal_lm(find_model(settings(folder)), dtype).model
    assert {weight.dtype for weight in model.parameters()} == {expected}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizer_without_padding_token_pads_with_its_end_of_text_on_the_side_asked_for(folder, side):
    loaded = load_causal_lm(find_model(settings(folder)), "fp32", padding_side=side)
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token
    assert loaded.model.config.pad_token_id == loaded.tokenizer.eos_token_id
    rows = loaded.tokenizer(["dogs chase cats", "dogs"], padding=True)["attention_mask"]
    assert rows[1][-1 if side == "right" else 0] == 0


@pytest.mark.parametrize(("bits", "kind"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_projections_are_quantised_and_still_counted_one_by_one(folder, bits, kind):
    plain, held = (load_causal_lm(find_model(settings(folder, how)), "fp32").model for how in (None, bits))
    assert type(held.model.layers[0].self_attn.q_proj).__name__ == kind
    counts = [sum(weights_in(weight) for weight in model.parameters()) for model in (plain, held)]
    assert counts[0] == counts[1]


def test_quantisation_without_bitsandbytes_is_refused_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"model.quantization=4bit needs bitsandbytes: pip install 'lorta\[quantised"):
        find_model(settings(folder, "4bit"))


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "llama", "max_position_embeddings": 4096}, None),  # computed: longer rows have positions too
    ],
)
def test_learned_positions_say_how_long_a_row_can_be(config, most):
    assert most_tokens(config) == most


def test_rows_are_cut_to_a_models_positions_and_the_record_says_so(tmp_path):
    (tmp_path / "glue" / "cola").mkdir(parents=True)
    rows = [{"idx": number, "sentence": "the cat " * 200, "label": number % 2} for number in range(4)]
    for split in ("train", "validation"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "glue" / "cola" / f"{split}.jsonl").write_text(lines)
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = ["adapter=lora", "task=glue/cola", f"data.root={tmp_path}", "trainer=smoke", *places]
    longer, just = (
        execute(make_plan([*words, f"data.max_length={most}"], False, CONF).specs[0]) for most in (512, 128)
    )
    assert (longer.status, just.status) == ("success", "success"), longer.failure
    assert longer.reasons["data.max_length"] == "rows are cut to 128 tokens: the model has positions for no more"
    assert "data.max_length" not in just.reasons
    assert longer.predictions_file == just.predictions_file
