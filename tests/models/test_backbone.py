"""A decoder is loaded in the precision and the number of bits that its settings say; rows fit a model's positions."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lorta.config.places import CONF
from lorta.config.settings import ModelSettings
from lorta.embedded import tasks
from lorta.models import locate
from lorta.models.backbone import load_causal_lm, load_classifier
from lorta.models.locate import ModelFiles, find_model, most_tokens
from lorta.models.quantization import dtype_of, quantization_of
from lorta.models.tokenizer import load_tokenizer
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


@pytest.mark.parametrize(("bits", "kind"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_a_classifier_is_quantised_too_but_for_its_head(folder, bits, kind):
    model = load_classifier(find_model(settings(folder, bits)), 2, "bf16").model
    assert (quantization_of(model), dtype_of(model)) == (bits, "bf16")
    assert type(model.model.layers[0].mlp.up_proj).__name__ == kind
    assert type(model.score).__name__ == "Linear"


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_glue_run_is_quantised_as_asked_and_its_record_says_what_was_loaded(tmp_path, bits, monkeypatch):
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = ["adapter=lora", "task=glue/cola", "trainer=smoke", "trainer.max_steps=2", *places]
    plain, held = (
        execute(make_plan([*words, *more], False, CONF).specs[0]) for more in ([], [f"model.quantization={bits}"])
    )
    assert (plain.model.quantization, held.model.quantization) == (None, bits), held.failure
    assert plain.predictions_file != held.predictions_file
    monkeypatch.setattr("lorta.models.backbone.quantization_settings", lambda *_: None)  # a loader that does not look
    ignored = execute(make_plan([*words, f"model.quantization={bits}", "seed=1"], False, CONF).specs[0])
    assert (ignored.status, ignored.failure.kind) == ("failed", "config")
    assert ignored.failure.message == f"model.quantization={bits}, and the loaded model has None"


def test_the_dtype_of_a_model_is_read_from_its_weights():
    layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Linear(2, 2).bfloat16()])
    assert dtype_of(layers) == "fp32+bf16"
    assert dtype_of(layers[1]) == "bf16"


@pytest.mark.parametrize("kind", ["roberta", "bert", "deberta-v2", "gpt2", "qwen3", "t5"])
def test_an_empty_tokenizer_is_none(tmp_path, kind):
    """transformers 5 makes one of a folder without its files, and rows of [UNK] train without a word."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ValueError, match=r"knows . tokens besides the special ones"):
        load_tokenizer(ModelFiles(str(tmp_path), None, "", {}))


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


def test_rows_beyond_a_decoders_trained_positions_are_kept_and_the_record_says_so(tmp_path):
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = ["task=instruct", "trainer=smoke", "trainer.max_steps=1", "task.generations=0", "data.max_train_samples=4"]
    words += ["adapter=lora", "data.max_eval_samples=2", *places]
    reasons = [
        execute(make_plan([*words, f"data.max_length={most}"], False, CONF).specs[0]).reasons.get("data.max_length")
        for most in (2048, 2049)
    ]
    assert reasons == [None, "rows can be longer than the 2048 tokens that the model's positions were trained for"]


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
