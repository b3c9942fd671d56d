"""What a PEFT user expects of an adapter, on an encoder, a decoder with grouped heads, a fused decoder and T5."""

import copy

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache
from tuner_backbones import batch
from tuners import CLOSE, HEADS, Pair, differs


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
