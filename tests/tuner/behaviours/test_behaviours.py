"""What a PEFT user expects of a tuner, on an encoder, a decoder with grouped heads, a fused decoder and T5."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache
from tuner_backbones import batch
from tuners import HEADS, TUNERS, Pair

PAIRS = [(name, backbone) for name, tuner in TUNERS.items() for backbone in tuner.backbones]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def known(name, request):
    """A tuner by name; a test that it is known to fail must fail."""
    if sentence := TUNERS[name].cannot.get(request.node.originalname):
        request.node.add_marker(pytest.mark.xfail(reason=sentence, strict=True))
    return TUNERS[name]


@pytest.fixture(params=TUNERS)
def tuner(request):
    return known(request.param, request)


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request):
    return Pair(known(request.param[0], request), request.param[1])


@pytest.fixture
def encoder(tuner):
    return Pair(tuner, "roberta")


def differs(found, other):
    return (found - other).abs().max() > 0.05 * other.abs().max()


def dtypes(weights):
    return {weight.dtype for weight in weights.values()}


def test_adapter_changes_nothing_at_the_start(pair):
    assert torch.equal(pair.logits(pair.attach(seed=None)), pair.logits(pair.base()))


def test_only_the_adapter_and_its_head_are_trainable(pair):
    model = pair.attach(seed=None)
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    head = {name for name, _ in model.named_parameters() if f"{HEADS[pair.backbone]}.modules_to_save" in name}
    assert head
    assert trainable == head | set(pair.weights(model))
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert model.get_nb_trainable_parameters()[0] == count


def test_training_moves_every_adapter_weight_and_nothing_else(pair):
    model = pair.attach(seed=None).train()
    before = copy.deepcopy(model.state_dict())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(2):  # the factor that starts at 0 is alone in having a gradient in the first step
        optimizer.zero_grad()
        pair.loss(model).backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trained


def test_the_same_seed_draws_the_same_weights(pair):
    first, second = (pair.weights(pair.attach(seed=None)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_delta_weight_is_what_merging_adds(pair):
    model = pair.attach()
    before = {path: layer.weight.detach().clone() for path, layer in pair.layers(model).items()}
    model.merge_adapter()
    for path, layer in pair.layers(model).items():
        assert_close(layer.weight, before[path] + layer.get_delta_weight("default"))


@pytest.mark.parametrize("safe", [False, True])
def test_merging_keeps_the_logits_and_unmerging_the_weights(pair, safe):
    model = pair.attach()
    adapted, weights = pair.logits(model), copy.deepcopy(model.state_dict())
    assert differs(adapted, pair.logits(pair.base()))
    model.merge_adapter(safe_merge=safe)
    assert_close(pair.logits(model), adapted, **CLOSE)
    model.unmerge_adapter()
    assert_close(pair.logits(model), adapted, **CLOSE)
    assert_close(model.state_dict(), weights, rtol=1e-5, atol=1e-5)


def test_merge_and_unload_gives_the_plain_model_with_the_adapted_logits(pair):
    base = pair.base()
    kind, names = type(base), set(base.state_dict())
    model = pair.attach(base=base)
    adapted = pair.logits(model)
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is kind
    assert set(merged.state_dict()) == names
    assert_close(pair.logits(merged), adapted, **CLOSE)


def test_unload_gives_the_base_model_back(pair):
    model = pair.attach().unload()
    plain = pair.base()
    assert torch.equal(pair.logits(model), pair.logits(plain))
    assert set(model.state_dict()) == set(plain.state_dict())


def test_safe_merge_refuses_a_broken_adapter_and_keeps_the_weights(encoder):
    model = encoder.attach()
    for weight in encoder.weights(model).values():
        weight.data.fill_(float("inf"))
    with pytest.raises(ValueError):
        model.merge_adapter(safe_merge=True)
    assert all(torch.isfinite(layer.weight).all() for layer in encoder.layers(model).values())


@pytest.mark.parametrize("merged", [False, True])
def test_disabled_adapter_gives_the_base_model(pair, merged):
    model = pair.attach()
    adapted = pair.logits(model)
    if merged:
        model.merge_adapter()
    with model.disable_adapter():
        assert_close(pair.logits(model), pair.logits(pair.base()), **CLOSE)
    assert_close(pair.logits(model), adapted, **CLOSE)


NAMED = {"wide": {"r": 5}, "narrow": {"r": 2, "roles": "qkv"}}


@pytest.fixture
def side_by_side(pair):
    """Logits of two adapters alone, and a model that holds both."""
    alone = {}
    task = None if pair.backbone in ("llama", "gpt2") else {}  # PEFT gives rows a head of their own if it is linear
    for seed, (name, settings) in enumerate(NAMED.items()):
        alone[name] = pair.logits(pair.attach(seed=seed, task=task, **settings))
    torch.manual_seed(0)
    model = get_peft_model(pair.base(), pair.config(task=task, **NAMED["wide"]), adapter_name="wide").eval()
    model.add_adapter("narrow", pair.config(task=task, **NAMED["narrow"]))
    for seed, name in enumerate(NAMED):
        pair.fill(model, name, seed=seed)
    return alone, model.eval()


def test_adapters_of_different_rank_and_targets_live_side_by_side(pair, side_by_side):
    alone, model = side_by_side
    assert differs(alone["wide"], alone["narrow"])
    for name in (*NAMED, *NAMED):
        model.set_adapter(name)
        assert_close(pair.logits(model), alone[name], **CLOSE)
        assert {key for key, weight in pair.weights(model, None).items() if weight.requires_grad} == set(
            pair.weights(model, name)
        )


def test_merging_one_of_two_adapters_leaves_the_other_out(pair, side_by_side):
    alone, model = side_by_side
    model.merge_adapter(adapter_names=["narrow"])
    model.set_adapter("narrow")
    assert_close(pair.logits(model), alone["narrow"], **CLOSE)
    model.unmerge_adapter()
    model.set_adapter("wide")
    assert_close(pair.logits(model), alone["wide"], **CLOSE)


def test_rows_of_a_batch_choose_their_adapter(pair, side_by_side):
    alone, model = side_by_side
    mixed = pair.logits(model, adapter_names=["narrow", "__base__", "wide"])
    assert_close(mixed[0], alone["narrow"][0], **CLOSE)
    assert_close(mixed[1], pair.logits(pair.base())[1], **CLOSE)
    assert_close(mixed[2], alone["wide"][2], **CLOSE)
    assert_close(pair.logits(model), alone["wide"], **CLOSE)  # the active one, as before


@pytest.mark.parametrize("names", [["unknown", "wide", "wide"], ["wide"]])
def test_rows_of_a_batch_are_refused_an_unknown_adapter_or_a_wrong_number(pair, side_by_side, names):
    with pytest.raises(ValueError):
        pair.logits(side_by_side[1], adapter_names=names)


def test_rows_of_a_batch_choose_no_adapter_while_one_is_merged(pair, side_by_side):
    model = side_by_side[1]
    model.merge_adapter()
    with pytest.raises(ValueError):
        pair.logits(model, adapter_names=["wide"] * 3)


def test_rows_of_a_batch_choose_no_adapter_in_training(pair, side_by_side):
    model = side_by_side[1].train()
    with pytest.raises(ValueError):
        pair.logits(model, adapter_names=["wide"] * 3)


def test_a_deleted_adapter_leaves_nothing_behind(pair, side_by_side):
    alone, model = side_by_side
    model.set_adapter("narrow")
    model.delete_adapter("narrow")
    assert not [name for name in model.state_dict() if "narrow" in name]
    model.set_adapter("wide")
    assert_close(pair.logits(model), alone["wide"], **CLOSE)
    model.add_adapter("narrow", pair.config(task={}, r=4))  # the name is free again, for another rank
    pair.fill(model, "narrow", seed=9)
    model.set_adapter("narrow")
    assert_close(pair.logits(model), pair.logits(pair.attach(seed=9, task={}, r=4)), **CLOSE)


def test_two_active_adapters_add_their_updates(pair):
    model = pair.attach(task={})
    model.add_adapter("second", pair.config(task={}, r=2))
    pair.fill(model, "second", seed=3)
    model.base_model.set_adapter(["default", "second"])
    layer = next(iter(pair.layers(model).values()))
    weight = layer.get_delta_weight("default") + layer.get_delta_weight("second")
    x = torch.randn(2, layer.in_features)
    assert_close(layer(x), layer.base_layer(x) + x @ (weight if pair.backbone == "gpt2" else weight.T), **CLOSE)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_reloaded_adapter_is_exact_and_frozen(pair, tmp_path, low_cpu_mem_usage):
    model = pair.attach()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(pair.base(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(pair.logits(again), pair.logits(model))
    assert not any(weight.requires_grad for weight in again.parameters())
    assert not any(weight.is_meta for weight in again.parameters())


def test_a_saved_adapter_is_a_configuration_and_safetensors(encoder, tmp_path):
    encoder.attach().save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files - {"README.md"} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_reloaded_adapter_can_be_trained_on(pair, tmp_path):
    model = pair.attach()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(pair.base(), tmp_path, is_trainable=True)
    trainable = {name for name, weight in again.named_parameters() if weight.requires_grad}
    assert trainable == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_an_adapter_is_loaded_beside_another(pair, tmp_path):
    first, second = pair.attach(r=2), pair.attach(r=5, seed=7)
    second.save_pretrained(tmp_path)
    expected = pair.logits(first)
    first.load_adapter(str(tmp_path), adapter_name="second")
    assert torch.equal(pair.logits(first), expected)
    first.set_adapter("second")
    assert_close(pair.logits(first), pair.logits(second), **CLOSE)


def test_a_state_dict_goes_from_one_model_to_another(pair):
    first, second = pair.attach(), pair.attach(seed=5)
    set_peft_model_state_dict(second, get_peft_model_state_dict(first))
    assert torch.equal(pair.logits(second), pair.logits(first))


def test_a_configuration_for_inference_freezes_the_adapter(pair):
    config = pair.config()
    config.inference_mode = True
    model = get_peft_model(pair.base(), config)
    assert not any(weight.requires_grad for weight in pair.weights(model).values())


def test_a_module_to_save_is_trained_saved_and_switched(encoder, tmp_path):
    base = encoder.base()
    extra = next(name for name, module in base.named_modules() if isinstance(module, nn.LayerNorm))
    model = encoder.attach(task={"modules_to_save": [extra]})
    module = model.base_model.model.get_submodule(extra)
    module.modules_to_save["default"].weight.data.add_(0.5)
    changed = encoder.logits(model)
    with model.disable_adapter():
        assert_close(encoder.logits(model), encoder.logits(base), **CLOSE)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(encoder.base(), tmp_path).eval()
    assert torch.equal(encoder.logits(again), changed)
    assert_close(encoder.logits(again.merge_and_unload()), changed, **CLOSE)


def test_only_the_chosen_layers_are_adapted(pair):
    model = pair.attach(layers=(0,), task={})
    paths = list(pair.layers(model))
    assert paths
    assert all(".0." in path for path in paths)


def test_excluded_modules_are_left_alone(encoder):
    model = encoder.attach(task={"exclude_modules": r".*attention\.self\.key"})
    paths = list(encoder.layers(model))
    assert len(paths) == 9
    assert not [path for path in paths if path.endswith("key")]


def test_dropout_acts_in_training_only(pair):
    model = pair.attach(dropout=0.5)
    assert torch.equal(pair.logits(model), pair.logits(model))
    model.train()
    assert not torch.equal(pair.logits(model), pair.logits(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_adapter_weights_stay_in_float32_on_a_half_precision_base(pair, dtype):
    model = pair.attach(base=pair.base().to(dtype), task={})
    assert dtypes(pair.weights(model)) == {torch.float32}
    assert pair.logits(model).dtype == dtype
    for layer in pair.layers(model).values():
        x = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(3)).to(dtype)
        update = layer.get_delta_weight("default").float()
        update = update.T if pair.backbone == "gpt2" else update
        exact = layer.base_layer(x).float() + x.float() @ update.T
        assert layer(x).dtype == dtype
        assert_close(layer(x).float(), exact, rtol=2e-2, atol=5e-2)


def test_a_merged_half_precision_base_keeps_its_dtype(pair):
    model = pair.attach(base=pair.base().to(torch.bfloat16), task={})
    exact = {
        path: layer.weight.float() + layer.get_delta_weight("default") for path, layer in pair.layers(model).items()
    }
    model.merge_adapter()
    for path, layer in pair.layers(model).items():
        assert layer.weight.dtype == torch.bfloat16
        assert_close(layer.weight.float(), exact[path], rtol=1e-2, atol=1e-2)


def test_adapter_weights_take_the_base_dtype_when_peft_is_told_not_to_cast(encoder):
    base = encoder.base().to(torch.bfloat16)
    model = get_peft_model(base, encoder.config(), autocast_adapter_dtype=False)
    assert dtypes(encoder.weights(model)) == {torch.bfloat16}


def test_a_float32_adapter_is_not_rounded_by_loading_it_on_a_bfloat16_base(encoder, tmp_path):
    model = encoder.attach(task={})
    model.save_pretrained(tmp_path)
    for low_cpu_mem_usage in (False, True):
        base = encoder.base().to(torch.bfloat16)
        again = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
        assert all(torch.equal(weight, encoder.weights(model)[name]) for name, weight in encoder.weights(again).items())


def test_autocast_trains_float32_weights(pair):
    model = pair.attach()
    exact = pair.loss(model).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = pair.loss(model)
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.2, abs=0.2)
    gradients = [weight.grad for weight in pair.weights(model).values()]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(pair, reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = pair.attach().train()
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        pair.loss(model).backward()
        gradients.append({name: weight.grad for name, weight in pair.weights(model).items()})
    assert_close(gradients[1], gradients[0], **CLOSE)
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())


@pytest.mark.parametrize("name", ["llama_lm", "t5_lm"])
def test_generation_uses_the_current_weights_with_and_without_a_cache(tuner, name):
    pair = Pair(tuner, name)
    prompt = batch("llama_lm")["input_ids"]
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    settings["attention_mask"] = torch.ones_like(prompt)
    plain = pair.base().generate(prompt, **settings)
    model = pair.attach(seed=None)
    assert torch.equal(model.generate(input_ids=prompt, **settings), plain)  # before any forward pass
    pair.fill(model)
    cache = DynamicCache() if name == "llama_lm" else EncoderDecoderCache(DynamicCache(), DynamicCache())
    cached = model.generate(input_ids=prompt, past_key_values=cache, **settings)
    assert not torch.equal(cached, plain)
    assert torch.equal(model.generate(input_ids=prompt, use_cache=False, **settings), cached)
    pair.fill(model, seed=5)
    changed = model.generate(input_ids=prompt, **settings)
    assert not torch.equal(changed, cached)
    assert torch.equal(model.merge_and_unload().generate(prompt, **settings), changed)


def test_generation_lets_rows_choose_their_adapter(tuner):
    pair = Pair(tuner, "llama_lm")
    prompt = batch("llama_lm")["input_ids"]
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    model = pair.attach()
    expected = model.generate(input_ids=prompt, **settings)
    plain = pair.base().generate(prompt, **settings)
    names = ["default", "__base__", "default"]
    for beams in (1, 2):
        mixed = model.generate(input_ids=prompt, adapter_names=names, num_beams=beams, **settings)
        if beams == 1:
            assert torch.equal(mixed, torch.stack([expected[0], plain[1], expected[2]]))
        else:
            alone = model.generate(input_ids=prompt, num_beams=beams, **settings)
            assert torch.equal(mixed[[0, 2]], alone[[0, 2]])


def test_a_copied_model_has_weights_of_its_own(pair):
    model = pair.attach()
    before = pair.logits(model)
    copied = pair.fill(copy.deepcopy(model), seed=6)
    assert differs(pair.logits(copied), before)
    assert torch.equal(pair.logits(model), before)


def test_peft_reports_on_the_adapter(pair):
    model = pair.attach(seed=None, task={})
    status = model.get_model_status()
    assert status.num_adapter_layers == len(pair.layers(model))
    assert status.available_adapters == status.active_adapters == ["default"]
    assert status.enabled
    assert not status.merged_adapters
    model.merge_adapter()
    assert model.get_model_status().merged_adapters == ["default"]


def test_targets_that_are_not_there_are_refused(encoder):
    config = encoder.config(task={})
    config.target_modules = ["no_such_module"]
    with pytest.raises(ValueError, match=r"No modules were targeted|not found in the base model"):
        get_peft_model(encoder.base(), config)
