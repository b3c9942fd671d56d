"""Adapters side by side, on an encoder, a decoder with grouped heads, a fused decoder and T5."""

import pytest
import torch
from torch.testing import assert_close
from tuner_backbones import batch
from tuners import CLOSE, NAMED, Pair, differs


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


def test_an_adapter_is_loaded_beside_another(pair, tmp_path):
    first, second = pair.attach(r=2), pair.attach(r=5, seed=7)
    second.save_pretrained(tmp_path)
    expected = pair.logits(first)
    first.load_adapter(str(tmp_path), adapter_name="second")
    assert torch.equal(pair.logits(first), expected)
    first.set_adapter("second")
    assert_close(pair.logits(first), pair.logits(second), **CLOSE)


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
