"""Laws of the tensor family inside PEFT: LoTR, FacT, CaRA, MetaTT and TensLoRA on tiny models; real counts."""

import dataclasses
import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from test_baseline_counts import MODELS, count
from torch.testing import assert_close
from transformers import GPT2Config, GPT2ForSequenceClassification, GPTNeoXConfig, GPTNeoXForSequenceClassification

from baselines.tensor.family import TensorLinear
from baselines.tensor.lotr import LotrConfig
from baselines.tensor.metatt import MetattConfig
from baselines.tensor.places import describe_all
from lorta.config.instantiate import build
from lorta.geometry import Geometry, ModelContext
from lorta.peft_extension.shared_factors import SharedFactorLinear

METHODS = ["lotr", "fact_tt", "fact_tk", "cara", "metatt_4d", "metatt_5d", "tenslora"]
QV, QKV, FULL = ("q", "v"), ("q", "k", "v"), ("q", "k", "v", "o", "up", "down")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def method(adapter):
    """Return load(name, rank, projections, **changes of its config)."""

    def load(name, rank=3, projections=None, **changes):
        found = adapter(name, rank, **changes)
        return dataclasses.replace(found, projections=projections) if projections else found

    return load


@pytest.fixture
def attached(method, backbone, randomise):
    """Return attach(name, family, ...): a model whose adapter changes its output, in evaluation mode."""

    def attach(name, family="roberta", projections=None, **changes):
        model = method(name, 3, projections, **changes).attach(small(backbone, family), "SEQ_CLS")
        randomise(model)
        return model.eval()

    return attach


def small(backbone, family):
    """A tiny model whose feed-forward width is twice its hidden width."""
    return backbone(
        family, **({"intermediate_size": 48} if family == "roberta" else {"intermediate_size": 64, "head_dim": 8})
    )


def layers_of(model):
    return {path: module for path, module in model.named_modules() if isinstance(module, TensorLinear)}


@pytest.mark.parametrize(
    ("name", "rank", "projections", "changes", "model_name", "expected"),
    [
        ("lotr", 2, QV, {}, "roberta-base", 3_168),  # the released README
        ("lotr", 8, QV, {}, "roberta-base", 13_824),
        ("lotr", 40, QV, {}, "roberta-base", 99_840),
        ("lotr", 8, QV, {}, "roberta-large", 19_456),
        ("lotr", 8, QV, {}, "llama-2-7b", 69_632),
        ("lotr", 8, QV, {"separate": True}, "roberta-base", 26_112),
        ("fact_tt", 4, FULL, {}, "roberta-base", 8_448),
        ("fact_tt", 16, FULL, {}, "roberta-base", 61_440),
        ("fact_tt", 16, FULL, {}, "roberta-large", 106_496),
        ("fact_tt", 16, QV, {}, "roberta-base", 30_720),
        ("fact_tt", 16, QV, {}, "llama-2-7b", 147_456),
        ("fact_tk", 16, FULL, {}, "roberta-base", 30_976),
        ("fact_tk", 32, FULL, {}, "roberta-base", 86_528),
        ("fact_tk", 32, QV, {}, "roberta-base", 82_688),
        ("fact_tk", 32, QV, {}, "llama-2-7b", 296_960),
        ("cara", 32, QV, {}, "roberta-base", 27_808),
        ("cara", 32, QV, {}, "roberta-large", 36_896),
        ("cara", 32, QV, {}, "llama-2-7b", 138_272),
        ("cara", 32, FULL, {}, "roberta-base", 85_440),
        ("cara", 32, FULL, {}, "roberta-large", 116_288),
        ("metatt_4d", 8, QV, {}, "roberta-base", 13_184),
        ("metatt_4d", 32, QV, {}, "roberta-large", 92_160),
        ("metatt_4d", 8, QV, {}, "llama-2-7b", 67_712),
        ("metatt_5d", 16, QV, {}, "roberta-base", 19_968),
        ("metatt_5d", 32, QV, {}, "roberta-large", 77_824),
        ("metatt_5d", 16, QV, {}, "llama-2-7b", 84_480),
        ("tenslora", 8, QKV, {}, "roberta-base", 16_504),
        ("tenslora", 8, QKV, {}, "roberta-large", 20_696),
        ("tenslora", 8, QKV, {}, "llama-2-7b", 69_912),
        ("tenslora", 4, QKV, {"modes": "att_qkv_depth"}, "roberta-base", 4_460),
        ("tenslora", 8, QKV, {"modes": "depth"}, "roberta-base", 38_688),
        ("tenslora", 8, QKV, {"modes": "qkv"}, "roberta-base", 153_888),
    ],
)
def test_a_real_model_has_the_worked_count(method, backbone, name, rank, projections, changes, model_name, expected):
    family, sizes = MODELS[model_name]
    found, real = method(name, rank, projections, **changes), backbone(family, device="meta", **sizes)
    assert found.parameters(real.geometry) == expected
    assert count(found.attach(real, "SEQ_CLS"))[0] == expected


@pytest.mark.parametrize("family", ["roberta", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_forward_equals_the_dense_update_and_the_merged_model(attached, backbone, tokens, name, family):
    model = attached(name, family)
    for layer in layers_of(model).values():
        x = torch.randn(2, layer.in_features)
        bias = layer.bias("default") if name == "cara" else None
        expected = layer.base_layer(x) + x @ layer.get_delta_weight("default").T + (0 if bias is None else bias)
        assert_close(layer(x), expected, **CLOSE)
    adapted, plain = model(tokens).logits, small(backbone, family).model(tokens).logits
    assert (adapted - plain).abs().max() > 1e-2
    model.merge_adapter(safe_merge=True)
    assert_close(model(tokens).logits, adapted, **CLOSE)
    model.unmerge_adapter()
    assert_close(model(tokens).logits, adapted, **CLOSE)
    merged = model.merge_and_unload()
    assert type(merged) is type(small(backbone, family).model)
    assert_close(merged(tokens).logits, adapted, **CLOSE)


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_changes_nothing_at_its_start_on_a_bfloat16_model(method, backbone, tokens, name):
    base = backbone("roberta", intermediate_size=48, dtype=torch.bfloat16)
    expected = base.model(tokens).logits
    model = get_peft_model(base.model, method(name).peft_config(base, "SEQ_CLS")).eval()
    assert torch.equal(model(tokens).logits, expected)
    factors = [weight for key, weight in model.named_parameters() if weight.requires_grad and "classifier" not in key]
    assert {weight.dtype for weight in factors} == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_a_key_or_value_head_gets_the_mean_of_the_query_heads_it_serves(attached, backbone, name):
    grouped = attached(name, "llama", QKV)
    roles = ("q_proj", "k_proj", "v_proj")
    ungrouped = method_on_ungrouped(grouped, backbone)
    for number, layer in enumerate(grouped.base_model.model.model.layers):
        for role in roles:
            whole = getattr(ungrouped.base_model.model.model.layers[number].self_attn, role).get_delta_weight("default")
            found = getattr(layer.self_attn, role).get_delta_weight("default")
            if role != "q_proj":  # 4 query heads of 8 features, 2 a key head
                whole = whole.view(2, 2, 8, 32).mean(dim=1).reshape(16, 32)
            assert_close(found, whole)


def method_on_ungrouped(grouped, backbone):
    """The same factors on a model with as many key heads as query heads."""
    config = dataclasses.replace(grouped.peft_config["default"], geometry=None, target_modules=r".*\.(q|k|v)_proj")
    base = backbone("llama", intermediate_size=64, head_dim=8, num_key_value_heads=4)
    model = get_peft_model(base.model, config)
    for name, weight in grouped.base_model.named_parameters(recurse=True):
        if name.startswith(grouped.base_model.prefix):
            model.base_model.get_parameter(name).data.copy_(weight)
    return model


@pytest.mark.parametrize("name", METHODS)
def test_adapters_of_different_rank_live_side_by_side(method, backbone, randomise, tokens, name):
    base = small(backbone, "roberta")
    model = get_peft_model(base.model, method(name, 3).peft_config(base, "SEQ_CLS")).eval()
    randomise(model)
    first = model(tokens).logits
    model.add_adapter("second", method(name, 2, QKV).peft_config(base, "SEQ_CLS"))
    assert torch.equal(model(tokens).logits, first)
    model.set_adapter("second")
    randomise(model)
    assert not torch.allclose(model(tokens).logits, first, atol=1e-2)
    assert all(
        key.endswith(".second")
        for key, weight in model.named_parameters()
        if weight.requires_grad and "classifier" not in key
    )
    model.set_adapter("default")
    model.delete_adapter("second")
    assert not [key for key in model.state_dict() if "second" in key]
    assert torch.equal(model(tokens).logits, first)
    with model.disable_adapter():
        assert torch.equal(model(tokens).logits, small(backbone, "roberta").model(tokens).logits)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_saved_adapter_holds_each_factor_once_and_comes_back(
    attached, backbone, tokens, tmp_path, name, low_cpu_mem_usage
):
    model = attached(name)
    model.save_pretrained(tmp_path)
    keys = {key for key in load_file(tmp_path / "adapter_model.safetensors") if "classifier" not in key}
    factors = next(iter(layers_of(model).values())).factors("default")
    assert keys == {f"base_model.{name}" for name in factors}
    again = PeftModel.from_pretrained(small(backbone, "roberta").model, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert_close(again.eval()(tokens).logits, model(tokens).logits)
    assert not any(weight.requires_grad for weight in again.parameters())
    saved = json.loads((tmp_path / "adapter_config.json").read_text())["geometry"]
    assert saved["hidden"] == 24 and set(saved["layers"]["q"]) == {0, 1}


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_of_another_model_is_refused(attached, backbone, tmp_path, name):
    attached(name).save_pretrained(tmp_path)
    other = backbone("roberta", intermediate_size=48, num_hidden_layers=3)
    with pytest.raises(ValueError, match="belongs to another model or other targets"):
        PeftModel.from_pretrained(other.model, tmp_path)


FUSED = {"vocab_size": 48, "num_labels": 2, "pad_token_id": 0}
GPT2 = GPT2Config(n_embd=24, n_head=4, n_layer=2, n_positions=24, n_inner=48, **FUSED)
NEOX = GPTNeoXConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48, **FUSED)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_a_fused_projection_gets_the_updates_of_its_parts(method, randomise, tokens, name, kind):
    model_class, config = (
        (GPT2ForSequenceClassification, GPT2) if kind == "gpt2" else (GPTNeoXForSequenceClassification, NEOX)
    )
    targets = "c_attn" if kind == "gpt2" else "query_key_value"
    model = get_peft_model(model_class(config), build(method(name).config, target_modules=[targets])).eval()
    randomise(model)
    for layer in layers_of(model).values():
        position, factors = layer.position["default"], layer.named_factors("default")
        parts = [
            layer.pair(position.config, factors, role, rows) for role, rows in zip(QKV, position.rows, strict=True)
        ]
        dense = [layer.scaling["default"] * up @ down.T for down, up in parts]
        expected = (
            torch.cat(dense).T if kind == "gpt2" else torch.stack([d.view(4, 6, 24) for d in dense], 1).reshape(72, 24)
        )
        assert_close(layer.get_delta_weight("default"), expected)
    expected = model(tokens).logits
    model.merge_adapter()
    assert_close(model(tokens).logits, expected, **CLOSE)


def test_a_method_that_cannot_attach_says_why(method, backbone):
    family, sizes = MODELS["llama-2-7b"]
    real = backbone(family, device="meta", **sizes).geometry
    for name, title in (("fact_tt", "FacT"), ("fact_tk", "FacT"), ("cara", "CaRA")):
        sentence = method(name).unsupported(ModelContext(real))
        assert sentence.startswith(
            f"{name} cannot attach: {title} cuts projections into blocks of 4096 inputs and 4096"
        )
        assert method(name, projections=list("qkvo")).unsupported(ModelContext(real)) is None
    assert "MetaTT adapts the projections q, k, v, o, not up" in method("metatt_4d", projections=["up"]).unsupported(
        ModelContext(real)
    )
    assert "between projections of one size" in method("lotr", projections=["q", "up"]).unsupported(ModelContext(real))
    assert method("lotr", projections=["q", "up"], separate=True).unsupported(ModelContext(real)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_modules": ["word_embeddings"]},
            "MetaTT adapts projections, but target_modules also selects",
        ),
        (
            {"target_modules": ["0.attention.self.query", "1.attention.self.value"]},
            "same projections in each layer",
        ),
        ({"target_modules": ["no_such_module"]}, "Target modules .* not found"),
    ],
)
def test_targets_that_make_no_tensor_are_refused_before_anything_is_replaced(backbone, settings, message):
    model = backbone("roberta").model
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, MetattConfig(**settings))
    assert not any(isinstance(module, SharedFactorLinear) for module in model.modules())


def test_without_targets_a_known_architecture_gets_the_methods_own(backbone):
    model = get_peft_model(backbone("roberta").model, LotrConfig(r=2))
    assert {path.rsplit(".", 1)[1] for path in layers_of(model)} == {"query", "value"}


def test_the_layers_of_an_encoder_decoder_are_all_its_attention_blocks():
    t5 = {
        "model_type": "t5",
        "d_model": 16,
        "num_heads": 4,
        "d_kv": 4,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 3,
    }
    described = describe_all(Geometry.from_config(t5), ("q", "up"))
    assert described["layers"] == {"q": list(range(8)), "up": list(range(5))}
