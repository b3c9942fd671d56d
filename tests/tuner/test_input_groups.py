"""The products that q, k and v share: never those of another input, another weight or another thread."""

import copy
import gc
import io
import weakref

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lorta.tuner import LortaConfig, products


def expected(layer, x):
    """What a layer should return now, from its dense update."""
    return nn.functional.linear(x, layer.weight + layer.get_delta_weight("default"), layer.bias)


def agree(members, x):
    return all(torch.allclose(member(x), expected(member, x), rtol=1e-4, atol=1e-4) for member in members)


def test_members_of_a_layer_share_one_product(layers, monkeypatch):
    _, members = layers()
    computed = []
    monkeypatch.setattr(type(members[0].group["default"][0]), "keep", lambda *_: computed.append(1))
    x = torch.randn(2, 24)
    members[0](x)
    assert len({id(member.group["default"][0]) for member in members}) == 1
    assert computed == [1]


def test_a_pass_computes_the_shared_product_once(layers):
    _, members = layers()
    x, calls = torch.randn(2, 24), []
    group = members[0].group["default"][0]
    keep = group.keep
    group.keep = lambda *values: (calls.append(values[1]), keep(*values))
    assert agree(members, x)
    assert calls == [0]  # by the query alone
    assert group._pass is None, "what was shared outlives its pass"


@pytest.mark.parametrize("grad", [True, False])
def test_nothing_of_a_pass_is_kept_alive(layers, grad):
    _, members = layers()
    x = torch.randn(2, 24)
    with torch.set_grad_enabled(grad):
        for member in members:
            member(x)
    seen = weakref.ref(x)
    del x
    gc.collect()
    assert seen() is None


def test_nothing_is_kept_where_keys_and_values_read_another_input_than_queries(backbone, inputs, randomise):
    model = randomise(get_peft_model(backbone("t5_lm"), LortaConfig(r=2)))
    model(**inputs("t5_lm"))
    groups = list(model.base_model.input_groups.values())
    members = [len(group.position.matrix_rows) for group in groups]
    assert members == [3, 3, 3, 2]  # encoder, encoder, decoder, and k and v of cross-attention
    assert all(group._pass is None for group in groups)


def test_inference_mode_gives_the_same_numbers(layers):
    _, members = layers()
    with torch.inference_mode():
        assert agree(members, torch.randn(2, 24))


def change_weights(members, x):
    for container in (members[0].lorta_hidden, members[0].lorta_heads, members[0].lorta_layers):
        container["default"].data.mul_(2)


def replace_weights(members, x):
    members[0].lorta_hidden["default"] = nn.Parameter(torch.randn(24, 3))


def change_input(members, x):
    with torch.no_grad():
        x.mul_(2)


@pytest.mark.parametrize("change", [change_weights, replace_weights, change_input])
@pytest.mark.parametrize("asked", [1, 3], ids=["after the query alone", "after a whole pass"])
def test_no_product_is_served_after_a_change(layers, change, asked):
    _, members = layers()
    x = torch.randn(2, 24)
    for member in members[:asked]:
        member(x)
    change(members, x)
    assert agree(members, x)
    assert agree(members[::-1], x)


def test_a_pass_that_repeats_a_member_starts_anew(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    query, key, value = members
    assert agree([query, key, query, key, value, key, key, query, value], x)


def test_a_product_without_a_graph_is_not_used_where_one_is_needed(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    with torch.no_grad():
        members[0](x)
    members[1](x).sum().backward()
    assert members[0].lorta_hidden["default"].grad.abs().max() > 0


def test_a_product_with_a_graph_is_not_used_without_one(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    members[0](x)
    with torch.no_grad():
        assert not members[1](x).requires_grad


def test_a_tensor_at_the_address_of_the_last_input_is_not_taken_for_it(layers):
    _, members = layers()
    buffer = torch.randn(2, 24)
    members[0](buffer.view(2, 24))  # a view lives for the call only; the next may get its id
    again = buffer.mul(-1).view(2, 24)
    assert agree(members[1:], again)


def test_other_inputs_between_members_do_no_harm(layers):
    """Cross attention: the query reads one tensor, key and value another."""
    _, members = layers()
    query, key, value = members
    first, second = torch.randn(2, 24), torch.randn(5, 24)
    for member, x in [(query, first), (key, second), (value, second), (query, second), (key, first)]:
        assert agree([member], x)


def test_another_thread_in_the_middle_of_a_pass_does_no_harm(layers, monkeypatch):
    """Two requests to one model: the other's query is served while this one's key asks what its query left."""
    _, members = layers()
    mine, others = torch.randn(2, 24), torch.randn(2, 24)
    state, interruptions = products._state, [lambda: members[0](others)]

    def interrupted(x):
        found = state(x)
        if x is mine and interruptions:
            interruptions.pop()()
        return found

    members[0](mine)
    monkeypatch.setattr(products, "_state", interrupted)
    assert agree(members[1:], mine)
    assert not interruptions


def test_an_exception_between_members_leaves_nothing_behind(layers, monkeypatch):
    _, members = layers()
    x = torch.randn(2, 24)
    members[0](x)
    with pytest.raises(RuntimeError):
        members[1](torch.randn(2, 23))
    change_weights(members, x)
    assert agree(members, x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_pass_gives_the_same_gradients(layers, reentrant):
    gradients = []
    for recompute in (False, True):
        _, members = layers()
        x = torch.randn(2, 24, generator=torch.Generator().manual_seed(3)).requires_grad_()

        def block(x, members=members):
            return sum(member(x).tanh() for member in members)

        out = checkpoint(block, x, use_reentrant=reentrant) if recompute else block(x)
        out.square().sum().backward()
        gradients.append([x.grad, *(value.grad for value in members[0].factors("default").values())])
    assert_close(gradients[1], gradients[0])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


def test_gradients_through_shared_products_equal_those_of_single_layers(layers):
    gradients = []
    for shared in (True, False):
        _, members = layers()
        if not shared:
            for member in members:
                member.group.clear()
        x = torch.randn(2, 24, generator=torch.Generator().manual_seed(3)).requires_grad_()
        sum(member(x).tanh() for member in members).square().sum().backward()
        gradients.append([x.grad, *(value.grad for value in members[0].factors("default").values())])
    assert_close(*gradients)


@pytest.mark.parametrize("apart", [0, 1, 2])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_member_whose_base_layer_runs_itself_adds_up_with_the_others(layers, apart, autocast):
    gradients = []
    for shared in (True, False):
        _, members = layers()
        members[apart].base_layer.register_forward_hook(lambda *_: None)
        if not shared:
            for member in members:
                member.group.clear()
        x = torch.randn(2, 24, generator=torch.Generator().manual_seed(3)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            outputs = [member(x) for member in members]
        sum(output.float().tanh() for output in outputs).square().sum().backward()
        gradients.append([x.grad, *(value.grad for value in members[0].factors("default").values())])
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).norm() < (0.02 if autocast else 1e-5) * expected.norm()


def copied(model):
    return copy.deepcopy(model)


def pickled(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("reproduce", [copied, pickled])
def test_a_reproduced_model_shares_nothing_with_the_original(layers, tokens, reproduce):
    model, members = layers()
    members[0](torch.randn(2, 24))  # something is waiting for key and value
    again = reproduce(model)
    before = model(tokens).logits
    assert_close(again(tokens).logits, before)
    again.base_model.lorta_hidden["default"].data.mul_(2)
    attention = again.base_model.model.roberta.encoder.layer[0].attention.self
    new = (attention.query, attention.key, attention.value)
    assert len({id(member.group["default"][0]) for member in new}) == 1
    assert new[0].group["default"][0] is not members[0].group["default"][0]
    assert agree(new, torch.randn(2, 24))
    assert torch.equal(model(tokens).logits, before)


def test_two_adapters_keep_products_of_their_own(layers, randomise):
    model, members = layers()
    model.add_adapter("second", LortaConfig(r=2))
    randomise(model, "second", seed=5)
    model.base_model.set_adapter(["default", "second"])
    x = torch.randn(2, 24)
    for member in members:
        both = member.get_delta_weight("default") + member.get_delta_weight("second")
        assert_close(member(x), member.base_layer(x) + x @ both.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sharing"),
    [
        ({"target_modules": ["key", "value"]}, 2),
        ({"target_modules": ["key"]}, 0),
        ({"head_side": "input"}, 0),
        ({"order": "4_way_per_matrix"}, 0),
        ({"order": "4_way_per_layer"}, 3),
        ({"order": "3_way_joint"}, 3),
    ],
)
def test_only_projections_that_have_the_same_a_share(backbone, randomise, settings, sharing):
    model = randomise(get_peft_model(backbone("roberta"), LortaConfig(r=2, **settings)))
    attention = model.base_model.model.roberta.encoder.layer[1].attention.self
    members = [member for member in (attention.query, attention.key, attention.value) if hasattr(member, "group")]
    assert sum("default" in member.group for member in members) == sharing
    assert agree(members, torch.randn(2, 24))
