"""SaRA: what is selected, what trains, what is kept, and what changes half-way."""

import pytest
import torch
from short_training import train
from torch.testing import assert_close

from baselines.sara.sparse import shifted
from baselines.sara.tuner import SaraConfig, SaraLinear, sara_layers

STEPS = 10
FAMILIES = ["roberta", "llama"]


def projections(model):
    """Return path -> weight of the six projections that the YAML names."""
    ends = ("query", "key", "value", "dense", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    found = {path: module for path, module in model.named_modules() if path.endswith(ends) and "classifier" not in path}
    return {path: module.weight.detach().clone() for path, module in found.items()}


def attach(adapter, base, **changes):
    method = adapter("sara", 2, **changes)
    return method, method.attach(base, "SEQ_CLS")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_threshold_selects_exactly_what_is_strictly_below_it(adapter, backbone, family):
    base = backbone(family)
    before = projections(base.model)
    method, model = attach(adapter, base, threshold=0.05)
    layers = {path.removeprefix("base_model.model."): m for path, m in model.named_modules() if hasattr(m, "entries")}
    assert layers.keys() == before.keys()
    for path, layer in layers.items():
        mask = torch.zeros(before[path].numel(), dtype=torch.bool)
        mask[layer.sara_indices["default"].long()] = True
        assert torch.equal(mask.view(before[path].shape), before[path].abs() < 0.05)
    assert method.parameters(base.geometry) is None


def test_a_budget_selects_as_many_weights_as_lora_adds_over_all_matrices(adapter, backbone):
    base = backbone("roberta")
    before = torch.cat([weight.flatten().abs() for weight in projections(base.model).values()])
    method, model = attach(adapter, base)
    expected = sum(2 * (inputs + outputs) for inputs, outputs in [(24, 24)] * 8 + [(24, 32), (32, 24)] * 2)
    selected = [layer.sara_values["default"].numel() for layer, _ in sara_layers(model)]
    threshold = model.peft_config["default"].threshold
    assert sum(selected) == expected == method.parameters(base.geometry) == int((before < threshold).sum())
    assert len(set(selected)) > 1  # one threshold for the model, not one count for each matrix


def test_the_start_is_the_backbone_bit_for_bit(adapter, backbone, tokens):
    expected = backbone("roberta").model(tokens).logits
    assert torch.equal(attach(adapter, backbone("roberta"))[1].eval()(tokens).logits, expected)


def test_the_norm_is_of_the_trained_weights_not_of_their_change(adapter, backbone):
    _, model = attach(adapter, backbone("roberta"))
    layer, _ = sara_layers(model)[0]
    torch.nn.init.normal_(layer.sara_values["default"], std=0.1)
    mask = torch.zeros(layer.weight.numel())
    mask[layer.sara_indices["default"].long()] = 1
    masked = mask.view_as(layer.weight) * (layer.weight + layer.get_delta_weight("default"))
    left, _, right = torch.linalg.svd(masked.detach(), full_matrices=False)
    expected = (left @ right).flatten()[layer.sara_indices["default"].long()]
    assert_close(layer.rank_gradient("default"), expected, atol=1e-4, rtol=1e-4)


def look(model, optimizer):
    layers = [layer for layer, _ in sara_layers(model)]
    moments = [state["exp_avg"].numel() for state in optimizer.state.values()]
    return {
        "trained": [layer.sara_indices["default"].tolist() for layer in layers],
        "frozen": [dict(zip(*(part.tolist() for part in frozen(layer)), strict=True)) for layer in layers],
        "moments": sum(moments),
        "head": sum(p.numel() for path, p in model.named_parameters() if "classifier" in path and p.requires_grad),
    }


def frozen(layer):
    return layer.sara_frozen_indices["default"], layer.sara_frozen_values["default"]


@pytest.fixture
def trained(adapter, backbone, tmp_path):
    """Return (adapter, model, weights before, what was seen after every step) of a run with its switch half-way."""
    base = backbone("roberta")
    before = projections(base.model)
    method, model = attach(adapter, base)
    _, seen = train(method, model, tmp_path / "run", look, max_steps=STEPS)
    return method, model, before, seen


def test_half_way_the_entries_that_grew_are_frozen_and_the_others_train_on(trained):
    _, _, _, seen = trained
    first, last = seen[STEPS // 2 - 2], seen[-1]
    assert not any(first["frozen"]) and any(last["frozen"])
    for old, new, kept in zip(first["trained"], last["trained"], last["frozen"], strict=True):
        assert set(new) | set(kept) == set(old) and not set(new) & set(kept)
    assert all(later["frozen"] == last["frozen"] for later in seen[STEPS // 2 - 1 :])


def test_only_selected_entries_and_the_head_have_gradients(adapter, backbone, tokens):
    method, model = attach(adapter, backbone("roberta"))
    model(tokens, labels=torch.tensor([0, 1, 0])).loss.backward()
    sizes = {path: weight.grad.numel() for path, weight in model.named_parameters() if weight.grad is not None}
    head = sum(size for path, size in sizes.items() if "classifier" in path)
    assert sum(sizes.values()) - head == method.parameters(backbone("roberta").geometry)
    assert {path.split(".")[-2] for path in sizes if "classifier" not in path} == {"sara_values"}


def test_only_selected_entries_and_the_head_have_optimizer_state(trained):
    _, _, before, seen = trained
    for step, now in enumerate(seen, start=1):
        selected = sum(map(len, now["trained"]))
        assert now["moments"] == now["head"] + selected * (step != STEPS // 2)  # afresh after the switch
    assert (
        sum(map(len, seen[-1]["trained"])) < sum(map(len, seen[0]["trained"])) < sum(map(torch.numel, before.values()))
    )


def test_exactly_the_claimed_number_of_weights_differs_and_the_others_are_untouched(trained):
    method, model, before, seen = trained
    base = {
        path.removeprefix("base_model.model."): layer
        for path, layer in model.named_modules()
        if hasattr(layer, "entries")
    }
    claimed = sum(map(len, seen[0]["trained"]))
    changed = 0
    for path, layer in base.items():
        assert torch.equal(layer.weight, before[path])
        tuned = shifted(layer.weight, *layer.entries("default")).detach()
        selected = torch.zeros(tuned.numel(), dtype=torch.bool)
        selected[layer.entries("default")[0].long()] = True
        assert torch.equal(tuned.flatten()[~selected], before[path].flatten()[~selected])
        changed += int((tuned != before[path]).sum())
    assert changed == claimed == method.changed_weights(model)


def test_a_run_is_saved_small_loads_bit_for_bit_and_merges(trained, backbone, tokens, tmp_path):
    method, model, before, seen = trained
    expected = model.eval()(tokens).logits
    method.save(model, tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert size < 8 * sum(map(len, seen[0]["trained"])) + 4 * seen[0]["head"] + 8_000  # an int32 and a float32 for each
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path).eval()
    assert torch.equal(again(tokens).logits, expected)
    assert method.changed_weights(again) == method.changed_weights(model)
    with torch.no_grad():
        merged = again.merge_and_unload()
    assert_close(merged(tokens).logits, expected)
    with model.disable_adapter():
        weights = {path.removesuffix(".base_layer"): value for path, value in projections(model).items()}
        assert all(torch.equal(weights["base_model.model." + path], value) for path, value in before.items())


def test_weights_kept_before_the_switch_come_back_after_it(adapter, backbone, tokens):
    _, model = attach(adapter, backbone("roberta"))
    layers = sara_layers(model)
    for layer, _ in layers:
        torch.nn.init.normal_(layer.sara_values["default"], std=0.1)
    expected = model.eval()(tokens).logits
    kept = {path: p.detach().clone() for path, p in model.state_dict(keep_vars=True).items() if p.requires_grad}
    for layer, name in layers:
        layer.select_again(name, model.peft_config["default"].threshold)
        torch.nn.init.normal_(layer.sara_values["default"], std=0.1)
    assert not torch.allclose(model(tokens).logits, expected)
    model.load_state_dict(kept, strict=False)
    assert torch.equal(model(tokens).logits, expected)


@pytest.mark.parametrize("keep_state", [False, True])
def test_moments_survive_the_switch_only_when_asked_to(adapter, backbone, tmp_path, keep_state):
    method, model = attach(adapter, backbone("roberta"), keep_state=keep_state)
    _, seen = train(method, model, tmp_path, look, max_steps=STEPS)
    at_switch = seen[STEPS // 2 - 1]
    assert at_switch["moments"] == at_switch["head"] + keep_state * sum(map(len, at_switch["trained"]))
    assert seen[-1]["moments"] == seen[-1]["head"] + sum(map(len, seen[-1]["trained"]))


def nuclear_norm(layer, adapter):
    """Return the nuclear norm of the selected weights as they are now, zero elsewhere."""
    indices = layer.entries(adapter)[0].long()
    tuned = (layer.weight + layer.get_delta_weight(adapter)).detach().flatten()
    return torch.zeros_like(tuned).index_put((indices,), tuned[indices]).view_as(layer.weight).norm(p="nuc")


def test_the_norm_pulls_and_a_run_without_switch_keeps_all_entries(adapter, backbone, tmp_path):
    sums = {}
    for weight in (0.0, 10.0):
        method, model = attach(adapter, backbone("roberta"), rank_weight=weight, rank_matrices=None, switch_at=None)
        train(method, model, tmp_path)
        layers = sara_layers(model)
        assert not any(layer.sara_frozen_values[name].numel() for layer, name in layers)
        sums[weight] = float(sum(nuclear_norm(layer, name) for layer, name in layers))
    assert sums[10.0] < sums[0.0]


def test_no_dense_copy_of_a_weight_is_kept_for_the_backward_pass(adapter, backbone, tokens):
    _, model = attach(adapter, backbone("roberta"))
    layer = next(module for module in model.modules() if isinstance(module, SaraLinear))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(torch.randn(3, layer.base_layer.in_features, requires_grad=True))
    dense = [tensor for tensor in kept if tensor.shape == layer.weight.shape]
    assert dense and all(tensor.data_ptr() == layer.weight.data_ptr() for tensor in dense)


def test_it_trains_under_bf16_autocast_and_on_a_bf16_backbone(adapter, backbone, tokens):
    for dtype in (torch.float32, torch.bfloat16):
        _, model = attach(adapter, backbone("roberta", dtype=dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
            loss = model(tokens, labels=torch.tensor([0, 1, 0])).loss
        loss.backward()
        for layer, name in sara_layers(model):
            assert layer.sara_values[name].dtype == torch.float32
            assert layer.sara_values[name].grad.abs().max() > 0


def test_a_second_adapter_has_its_own_entries(adapter, backbone, tokens):
    method, model = attach(adapter, backbone("roberta"))
    for layer, _ in sara_layers(model):
        torch.nn.init.normal_(layer.sara_values["default"], std=0.1)
    first = model.eval()(tokens).logits
    config = method.peft_config(backbone("roberta"), "SEQ_CLS")
    config.threshold = 0.01
    model.add_adapter("second", config)
    model.set_adapter("second")
    assert {name for _, name in sara_layers(model)} == {"second"}
    assert not torch.equal(model(tokens).logits, first)
    model.set_adapter("default")
    assert torch.equal(model(tokens).logits, first)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs a threshold, or r of at least 1"),
        ({"threshold": 0.0}, "threshold must be above 0, got 0.0"),
        ({"r": 2, "switch_at": 1.0}, "switch_at must be between 0 and 1, got 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        SaraConfig(**settings)


def test_a_threshold_below_all_weights_is_refused(adapter, backbone):
    with pytest.raises(ValueError, match="no weight is below the threshold 1e-30: raise it"):
        attach(adapter, backbone("roberta"), threshold=1e-30)
