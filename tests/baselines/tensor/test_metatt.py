"""MetaTT's algebra in both orders, its DMRG sweeps, and training through a sweep."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tensor_oracles import draw, geometry, slots, update
from transformers import Trainer, TrainingArguments

from baselines.tensor.metatt import CORES, MetattConfig, MetattModel, Sweeps, compress, sweep

ROLES = st.sets(st.sampled_from("qkvo"), min_size=1).map(lambda roles: tuple(sorted(roles)))


@given(st.sampled_from(["4d", "5d"]), st.integers(1, 4), st.integers(1, 3), ROLES, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_update_is_a_slice_of_the_train(order, rank, layers, roles, seed):
    config = MetattConfig(r=rank, order=order, alpha=0.5)
    factors = draw(MetattModel, config, geometry(layers), roles, seed)
    letters = "ia,lab,mbc,cj->lmji" if order == "4d" else "ia,lab,mbc,hcd,dj->lmhji"
    tensor = torch.einsum(letters, *(factors[name] for name in CORES[order])).flatten(2, -2)
    places = slots(layers, roles)
    for number, (layer, role) in enumerate(places):
        found = update(MetattModel, config, factors, layer, role)
        torch.testing.assert_close(found, 0.5 * tensor[layer, number % len(set(roles))])
        assert torch.linalg.matrix_rank(found) <= rank


def entries(cores):
    tensor = cores[0]
    for core in cores[1:]:
        tensor = torch.tensordot(tensor, core, dims=1)
    return tensor


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_compressing_to_the_rank_of_a_train_loses_nothing_and_below_it_no_more_than_its_bound(
    sizes, rank, target, seed
):
    generator = torch.Generator().manual_seed(seed)
    ranks = [1, *[rank] * (len(sizes) - 1), 1]
    shapes = [(ranks[i], size, ranks[i + 1]) for i, size in enumerate(sizes)]
    cores = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    before, found = entries(cores), compress(cores, target)
    assert max(core.shape[2] for core in found) <= target
    left_out = sum(
        torch.linalg.svdvals(before.reshape(before.shape[: cut + 1].numel(), -1))[target:].square().sum()
        for cut in range(1, len(sizes))
    )
    error = (entries(found) - before).square().sum()
    assert error <= left_out * (1 + 1e-9) + 1e-18 * before.square().sum()


def attached(adapter, backbone, randomise, name="metatt_4d", rank=5, **changes):
    model = adapter(name, rank, **changes).attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    return model


def deltas(model):
    attention = [layer.attention.self for layer in model.base_model.model.roberta.encoder.layer]
    return [module.get_delta_weight("default") for layer in attention for module in (layer.query, layer.value)]


@pytest.mark.parametrize("name", ["metatt_4d", "metatt_5d"])
def test_a_sweep_to_the_true_rank_keeps_every_update(adapter, backbone, randomise, name, tmp_path, tokens):
    model = attached(adapter, backbone, randomise, name)
    cores = [getattr(model.base_model, f"metatt_{core}")["default"] for core in CORES[name[-2:]]]
    with torch.no_grad():  # a train of rank 3 inside one of rank 5
        cores[0][:, 3:] = 0
        for core in cores[1:-1]:
            core[:, :3, 3:] = 0
    before = deltas(model)
    sweep(model.base_model, "default", 3)
    assert {core.shape[-1] for core in cores[:-1]} == {3}
    for found, expected in zip(deltas(model), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(backbone("roberta").model, tmp_path).eval()
    torch.testing.assert_close(again(tokens).logits, model.eval()(tokens).logits)


def test_a_rank_that_a_sweep_cannot_reach_is_refused(adapter, backbone, randomise):
    model = attached(adapter, backbone, randomise)
    with pytest.raises(ValueError, match="the rank must be from 1 to 5, got 6"):
        sweep(model.base_model, "default", 6)


def test_training_goes_on_at_the_lower_rank_with_new_moments(adapter, backbone, randomise, tokens, tmp_path):
    model = attached(adapter, backbone, randomise)
    rows = [{"input_ids": row, "labels": label} for row, label in zip(tokens, (0, 1, 1), strict=True)]
    seen = []

    class Watch(Sweeps):
        def on_epoch_end(self, args, state, control, **kwargs):
            super().on_epoch_end(args, state, control, **kwargs)
            moments = kwargs["optimizer"].optimizer.state
            cores = [getattr(model.base_model, f"metatt_{name}")["default"] for name in CORES["4d"]]
            seen.append((cores[0].shape[1], [core in moments for core in cores], model.peft_config["default"].r))

    arguments = TrainingArguments(
        str(tmp_path),
        num_train_epochs=3,
        learning_rate=1e-2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model, arguments, train_dataset=rows, callbacks=[Watch({"sweeps": [[1, 4], [2, 2]]})]).train()
    assert seen == [(4, [False] * 4, 4), (2, [False] * 4, 2), (2, [True] * 4, 2)]
    assert all(torch.linalg.matrix_rank(delta) <= 2 for delta in deltas(model))


def test_weights_kept_before_a_sweep_come_back_with_their_rank(adapter, backbone, randomise, tokens):
    model = attached(adapter, backbone, randomise).eval()
    kept, expected = copy.deepcopy(model.state_dict()), model(tokens).logits
    sweep(model.base_model, "default", 2)
    assert not torch.allclose(model(tokens).logits, expected)
    model.load_state_dict(kept)
    assert torch.equal(model(tokens).logits, expected)
    assert model.peft_config["default"].r == 5


def test_the_first_core_alone_starts_at_zero_and_alone_has_a_gradient_at_first(adapter, backbone, tokens):
    for name in ("metatt_4d", "metatt_5d"):
        model = adapter(name, 4).attach(backbone("roberta"), "SEQ_CLS")
        model(tokens, labels=torch.tensor([0, 1, 0])).loss.backward()
        moved = {key for key, weight in model.named_parameters() if "metatt_" in key and weight.grad.any()}
        assert moved == {"base_model.metatt_first.default"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"order": "6d"}, "order must be one of 4d, 5d"), ({"init": "zero"}, "init must be one of identity, normal")],
)
def test_a_wrong_setting_is_refused_with_its_value(changes, message):
    with pytest.raises(ValueError, match=message):
        MetattConfig(**changes)


def test_feed_forward_projections_are_refused():
    with pytest.raises(ValueError, match="MetaTT adapts the projections q, k, v, o, not up"):
        draw(MetattModel, MetattConfig(), geometry(blocks=1), ("q", "up"), 0)


@pytest.mark.parametrize(("init", "moved"), [("identity", 6), ("normal", 8)])
def test_from_identities_no_component_beyond_the_head_dimension_ever_moves(adapter, backbone, tokens, init, moved):
    model = adapter("metatt_5d", 8, init=init).attach(backbone("roberta"), "SEQ_CLS")
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(4):
        model(tokens, labels=torch.tensor([0, 1, 0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert int(model.base_model.metatt_first["default"].any(dim=0).sum()) == moved
