import copy
import re

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import DynamicCache

from lorta.tuner import LortaConfig, LortaLinear

EXACT = {"rtol": 1e-5, "atol": 1e-5}
ATTACHABLE = [
    ("roberta", "natural"),
    ("roberta", "input"),
    ("roberta", "output"),
    ("llama", "natural"),
]


def attach(model, **settings):
    return get_peft_model(model, LortaConfig(**({"r": 3, "alpha": 2.0, "task_type": "SEQ_CLS"} | settings)))


def layers_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, LortaLinear)}


def rows(model, adapter="default"):
    names = ("hidden", "head_dim", "heads", "layers", "matrices")
    return {name: len(getattr(model.base_model, f"lorta_{name}")[adapter]) for name in names}


@pytest.mark.parametrize("name", ["roberta", "llama"])
@pytest.mark.parametrize("init", ["reference", "rank_neutral"])
def test_adapter_changes_nothing_at_initialisation(backbone, tokens, name, init):
    model = attach(backbone(name), init=init)
    assert torch.equal(model(tokens).logits, backbone(name)(tokens).logits)


@pytest.mark.parametrize(("name", "head_side"), ATTACHABLE)
def test_merged_and_unmerged_models_agree(backbone, tokens, randomise, name, head_side):
    model = randomise(attach(backbone(name), head_side=head_side))
    adapted, plain = model(tokens).logits, backbone(name)(tokens).logits
    assert (adapted - plain).abs().max() > 0.1
    model.merge_adapter(safe_merge=True)
    assert_close(model(tokens).logits, adapted, **EXACT)
    model.unmerge_adapter()
    assert_close(model(tokens).logits, adapted, **EXACT)
    for path, layer in layers_of(model).items():
        before = backbone(name).get_submodule(path.removeprefix("base_model.model."))
        assert_close(layer.weight, before.weight, **EXACT)


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_merge_and_unload_returns_the_plain_class_with_the_same_logits(backbone, tokens, randomise, name):
    base = backbone(name)
    plain, kind = base(tokens).logits, type(base)
    model = randomise(attach(base))
    adapted = model(tokens).logits
    merged = model.merge_and_unload()
    assert type(merged) is kind
    assert not any("lorta" in key for key in merged.state_dict())
    assert_close(merged(tokens).logits, adapted, **EXACT)
    assert not torch.allclose(merged(tokens).logits, plain, atol=0.1)


def test_safe_merge_refuses_a_broken_adapter_and_keeps_the_weights(backbone):
    model = attach(backbone("roberta"))
    model.base_model.lorta_head_dim["default"].data.fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)
    assert all(torch.isfinite(layer.weight).all() for layer in layers_of(model).values())


@pytest.mark.parametrize("merged", [False, True])
def test_disabled_adapter_gives_the_base_model(backbone, tokens, randomise, merged):
    model = randomise(attach(backbone("roberta")))
    adapted = model(tokens).logits
    if merged:
        model.merge_adapter()
    with model.disable_adapter():
        assert_close(model(tokens).logits, backbone("roberta")(tokens).logits, **EXACT)
    assert_close(model(tokens).logits, adapted, **EXACT)


def test_adapters_of_different_rank_and_targets_live_side_by_side(backbone, tokens, randomise):
    alone = {}
    settings = {"wide": {"r": 5}, "narrow": {"r": 2, "target_modules": ["query", "value"]}}
    for seed, (name, values) in enumerate(settings.items()):
        alone[name] = randomise(attach(backbone("roberta"), **values), seed=seed)(tokens).logits
    model = get_peft_model(backbone("roberta"), LortaConfig(task_type="SEQ_CLS", alpha=2.0, r=5), adapter_name="wide")
    model.add_adapter("narrow", LortaConfig(task_type="SEQ_CLS", alpha=2.0, **settings["narrow"]))
    for seed, name in enumerate(settings):
        randomise(model, adapter=name, seed=seed)
    for name in settings:
        model.set_adapter(name)
        assert_close(model(tokens).logits, alone[name], **EXACT)
        trained = {
            key.rsplit(".", 1)[1] for key, value in model.named_parameters() if "lorta_" in key and value.requires_grad
        }
        assert trained == {name}
    model.merge_adapter()  # of the narrow one, on layers some of which only the wide one adapts
    assert_close(model(tokens).logits, alone["narrow"], **EXACT)
    assert rows(model, "narrow") == {"hidden": 24, "head_dim": 6, "heads": 4, "layers": 3, "matrices": 2}


def test_two_active_adapters_add_their_updates(backbone, randomise):
    model = attach(backbone("roberta"), task_type=None)
    model.add_adapter("second", LortaConfig(r=2, alpha=1.0))
    randomise(randomise(model), "second", seed=3)
    model.base_model.set_adapter(["default", "second"])
    layer = next(iter(layers_of(model).values()))
    x = torch.randn(2, 24)
    updates = layer.get_delta_weight("default") + layer.get_delta_weight("second")
    assert_close(layer(x), layer.base_layer(x) + x @ updates.T, **EXACT)


def test_a_deleted_adapter_leaves_nothing_behind(backbone, tokens, randomise):
    model = randomise(attach(backbone("roberta")))
    expected = model(tokens).logits
    model.add_adapter("second", LortaConfig(r=2, task_type="SEQ_CLS"))
    model.set_adapter("second")
    model.delete_adapter("second")
    assert not [key for key in model.state_dict() if "second" in key]
    assert all("second" not in layer.position for layer in layers_of(model).values())
    model.set_adapter("default")
    assert_close(model(tokens).logits, expected, **EXACT)


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_only_adapter_and_head_move_and_every_one_of_them_does(backbone, tokens, name):
    model = attach(backbone(name))
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):  # with B = 0 only B has a gradient in the first step
        optimizer.zero_grad()
        model(tokens, labels=torch.tensor([0, 1, 1])).loss.backward()
        optimizer.step()
    for key, value in model.state_dict().items():
        trained = "lorta_" in key or "modules_to_save" in key
        assert torch.equal(value, before[key]) != trained, key


def test_factors_stay_in_float32_on_a_bfloat16_base(backbone, tokens, randomise):
    model = attach(backbone("roberta").to(torch.bfloat16))
    model.base_model.model.classifier.to(torch.bfloat16)
    randomise(model)
    assert {p.dtype for key, p in model.named_parameters() if "lorta_" in key} == {torch.float32}
    layer = next(iter(layers_of(model).values()))
    x = torch.randn(4, 24).to(torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    exact = x.float() @ (layer.weight.float() + layer.get_delta_weight("default")).T + layer.bias.float()
    assert_close(layer(x).float(), exact, rtol=2e-2, atol=2e-2)
    assert model(tokens).logits.dtype == torch.bfloat16
    model.merge_adapter()
    assert layer.weight.dtype == torch.bfloat16
    assert_close(layer(x).float(), exact, rtol=2e-2, atol=2e-2)


def test_factors_take_the_base_dtype_when_peft_is_told_not_to_cast(backbone):
    config = LortaConfig(r=2, task_type="SEQ_CLS")
    model = get_peft_model(backbone("roberta").to(torch.bfloat16), config, autocast_adapter_dtype=False)
    assert {p.dtype for key, p in model.named_parameters() if "lorta_" in key} == {torch.bfloat16}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(backbone, tokens, randomise, reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = randomise(attach(backbone("roberta"))).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(tokens, labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if "lorta_" in key})
    assert_close(gradients[1], gradients[0])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())


def test_generation_uses_the_current_factors_with_and_without_a_cache(backbone, tokens, randomise):
    model = attach(backbone("llama_lm"), task_type="CAUSAL_LM")
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    plain = backbone("llama_lm").generate(tokens, **settings)
    assert torch.equal(model.generate(input_ids=tokens, **settings), plain)  # before any forward pass
    randomise(model)
    cached = model.generate(input_ids=tokens, past_key_values=DynamicCache(), **settings)
    assert not torch.equal(cached, plain)
    assert torch.equal(model.generate(input_ids=tokens, use_cache=False, **settings), cached)
    assert torch.equal(model.merge_and_unload().generate(tokens, **settings), cached)


def test_dropout_acts_in_training_only(backbone, tokens, randomise):
    model = randomise(attach(backbone("roberta"), dropout=0.5))
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("targets", [None, ["query", "value"], r".*\.attention\.self\.(query|value)"])
def test_only_the_chosen_layers_and_projections_get_rows(backbone, targets):
    model = attach(backbone("roberta"), target_modules=targets, layers_to_transform=[2, 0])
    assert {int(re.search(r"\.(\d+)\.", path).group(1)) for path in layers_of(model)} == {0, 2}
    assert rows(model)["layers"] == 2
    assert rows(model)["matrices"] == (2 if targets else 4)


def test_rows_of_the_matrix_mode_follow_q_k_v_o_and_not_the_order_of_targets(backbone):
    model = attach(backbone("roberta"), target_modules=["value", "attention.output.dense", "query"])
    places = {
        path.split("attention.")[1]: layer.position["default"].matrix_rows[0]
        for path, layer in layers_of(model).items()
    }
    assert places == {"self.query": 0, "self.value": 1, "output.dense": 2}


def test_key_and_value_heads_average_the_rows_of_the_query_heads_they_serve(backbone, randomise):
    model = randomise(attach(backbone("llama")))
    factors = model.base_model
    key = layers_of(model)["base_model.model.model.layers.1.self_attn.k_proj"].get_delta_weight("default")
    head_rows = factors.lorta_heads["default"]
    averaged = torch.stack([head_rows[:2].mean(0), head_rows[2:].mean(0)])
    component = averaged * factors.lorta_layers["default"][1] * factors.lorta_matrices["default"][1] * 2.0 / 3
    wide = torch.einsum("hr,jr->hjr", component, factors.lorta_head_dim["default"]).reshape(12, 3)
    assert_close(key, wide @ factors.lorta_hidden["default"].T)


def test_the_same_seed_draws_the_same_factors(backbone):
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(attach(backbone("roberta")).base_model.lorta_hidden["default"])
    assert torch.equal(*drawn)


def test_a_copied_model_has_factors_of_its_own_that_its_layers_still_share(backbone, tokens, randomise):
    model = attach(backbone("roberta"))
    copied = randomise(copy.deepcopy(model))
    assert (copied(tokens).logits - model(tokens).logits).abs().max() > 0.1
    assert all(layer.lorta_hidden is copied.base_model.lorta_hidden for layer in layers_of(copied).values())


def test_peft_can_report_on_the_adapter(backbone):
    status = attach(backbone("roberta")).get_model_status()
    assert status.num_adapter_layers == 12 + 1  # and the head
    assert status.available_adapters == status.active_adapters == ["default"]


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (
            "roberta",
            {"target_modules": ["query", "classifier.dense"], "task_type": None},
            "adapts the projections q, k, v, o",
        ),
        (
            "roberta",
            {"target_modules": ["0.attention.self.query", "1.attention.self.value"]},
            "same projections in each",
        ),
        ("llama", {"head_side": "input"}, "head_side='natural'"),
        ("roberta", {"target_modules": ["no_such_module"]}, "No modules were targeted"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_anything_is_replaced(backbone, name, settings, sentence):
    model = backbone(name)
    with pytest.raises(ValueError, match=sentence):
        attach(model, **settings)
    assert not layers_of(model)


def test_a_model_type_without_a_row_is_named(backbone, monkeypatch):
    model = backbone("roberta")
    monkeypatch.setattr(type(model.config), "model_type", "unheard-of")
    with pytest.raises(ValueError, match=r"no row for model_type 'unheard-of' in lorta/geometry\.py"):
        attach(model)


def test_a_projection_that_is_no_linear_is_refused(backbone):
    model = backbone("roberta")
    model.roberta.encoder.layer[1].attention.self.query = nn.Identity()
    with pytest.raises(
        TypeError, match=r"layer\.1\.attention\.self\.query: expected a torch.nn.Linear.* got a Identity"
    ):
        attach(model)
