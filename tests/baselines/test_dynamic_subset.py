"""Dynamic Subset Tuning: the projection, the moving subset in a real trainer, and the sparse file."""

from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from short_training import train
from torch.testing import assert_close

from baselines.dynamic_subset.projection import MovingSubset, furthest

FAMILIES = ["roberta", "llama"]


def attach(adapter, base, **changes):
    method = replace(adapter("dst"), **changes)
    return method, method.attach(base, "SEQ_CLS")


def subset_of(weights, fraction, distance="absolute", silos="global"):
    """Return (module with one vector of weights, its subset), the weights being the seed."""
    model = torch.nn.Module()
    model.vector = torch.nn.Parameter(torch.tensor(weights))
    return model, MovingSubset(model, (), fraction, silos, distance)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30).flatmap(
        lambda d: st.tuples(st.just(d), st.integers(0, len(d)))
    )
)
def test_the_furthest_are_those_of_a_stable_sort(drawn):
    distances, count = drawn
    expected = np.argsort([-distance for distance in distances], kind="stable")[:count]
    assert furthest(torch.tensor(distances).float(), count).nonzero().flatten().tolist() == sorted(expected)


def test_a_weight_enters_when_one_step_carries_it_further_and_the_old_one_returns_to_its_seed():
    model, subset = subset_of([1.0, 2.0, 3.0, 4.0], 0.25)
    for gradient, expected in [
        ([0.4, 0.3, 0.0, 0.0], [0.6, 2.0, 3.0, 4.0]),
        ([0.0, 0.3, 0.2, 0.0], [0.6, 2.0, 3.0, 4.0]),
        ([0.0, 0.0, 0.5, 0.0], [1.0, 2.0, 2.5, 4.0]),
    ]:
        with torch.no_grad():
            model.vector -= torch.tensor(gradient)
        subset.project(model)
        assert_close(model.vector.detach(), torch.tensor(expected))
    assert (subset.changed(model), subset.entered) == (1, 2)


def test_the_relative_distance_favours_small_weights():
    kept = {}
    for distance in ("absolute", "relative"):
        model, subset = subset_of([10.0, 0.1], 0.5, distance)
        with torch.no_grad():
            model.vector += torch.tensor([1.0, 0.5])
        kept[distance] = subset.project(model)["vector"].tolist()
    assert kept == {"absolute": [True, False], "relative": [False, True]}


def test_the_allowed_number_is_exact_where_floats_are_not():
    assert 0.29 * 100 < 29
    assert subset_of([0.0] * 100, 0.29)[1].allowed("") == 29


@pytest.mark.parametrize(("silos", "expected"), [("module", 20), ("tensor", 37), ("layer", 3), ("global", 1)])
def test_silos_are_disjoint_and_hold_every_weight_but_the_head(adapter, backbone, silos, expected):
    _, model = attach(adapter, backbone("roberta"), silos=silos)
    found = model.moving_subset.silos
    paths = [path for members in found.values() for path in members]
    assert sorted(paths) == sorted(path for path, _ in model.named_parameters() if not path.startswith("classifier"))
    assert (
        len(found) == expected
    )  # 3 embeddings, a norm and 8 modules a layer; 5 tensors and 16 a layer; layers and rest


def differing(model, _):
    """Return silo -> how many of its weights differ from the seed."""
    subset, weights = model.moving_subset, dict(model.named_parameters())
    return {
        silo: sum(int((weights[path] != subset.seed[path]).sum()) for path in paths)
        for silo, paths in subset.silos.items()
    }


@pytest.mark.parametrize("silos", ["module", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_after_every_step_exactly_the_allowed_number_differs_in_each_silo(adapter, backbone, tmp_path, family, silos):
    before = {path: weight.detach().clone() for path, weight in backbone(family).model.named_parameters()}
    method, model = attach(adapter, backbone(family), fraction=0.02, silos=silos)
    _, seen = train(method, model, tmp_path, differing)
    subset = model.moving_subset
    allowed = {silo: subset.allowed(silo) for silo in subset.silos}
    assert sum(allowed.values()) > 100
    assert all(now == allowed for now in seen)
    assert method.changed_weights(model) == sum(allowed.values())
    assert all(torch.equal(seed, before[path]) for path, seed in subset.seed.items())
    assert any(not torch.equal(w, before[path]) for path, w in model.named_parameters() if path not in subset.seed)


def test_the_whole_as_the_subset_is_full_fine_tuning_bit_for_bit(adapter, backbone, tmp_path):
    method, model = attach(adapter, backbone("roberta"), fraction=1.0)
    full = adapter("full")
    other = full.attach(backbone("roberta"), "SEQ_CLS")
    train(method, model, tmp_path)
    train(full, other, tmp_path)
    expected = dict(other.named_parameters())
    assert all(torch.equal(weight, expected[path]) for path, weight in model.named_parameters())
    assert method.changed_weights(model) > 0.5 * sum(seed.numel() for seed in model.moving_subset.seed.values())


def test_every_weight_has_moments_so_memory_is_that_of_full_fine_tuning(adapter, backbone, tmp_path):
    method, model = attach(adapter, backbone("roberta"))
    trainer, _ = train(method, model, tmp_path)
    moments = sum(state["exp_avg"].numel() for state in trainer.optimizer.state.values())
    assert moments == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("moments", ["keep", "clear"])
def test_moments_of_weights_put_back_are_kept_or_cleared(adapter, backbone, tmp_path, moments):
    method, model = attach(adapter, backbone("roberta"), moments=moments)
    trainer, _ = train(method, model, tmp_path)
    subset = model.moving_subset
    outside = [
        trainer.optimizer.state[weight]["exp_avg"][weight == subset.seed[path]].abs().max()
        for path, weight in model.named_parameters()
        if path.endswith("dense.weight") and path in subset.seed
    ]
    assert (max(outside) == 0) == (moments == "clear")
    head = next(weight for path, weight in model.named_parameters() if path.startswith("classifier"))
    assert trainer.optimizer.state[head]["exp_avg"].abs().min() > 0


def test_the_history_says_how_the_subset_moved(adapter, backbone, tmp_path):
    method, model = attach(adapter, backbone("roberta"))
    trainer, _ = train(method, model, tmp_path, logging_steps=2)
    entered = [row["subset_entered"] for row in trainer.state.log_history if "loss" in row]
    assert len(entered) == 5
    assert entered[0] >= method.changed_weights(model) > 0
    assert sum(entered[1:]) > 0


def test_two_runs_end_alike(adapter, backbone, tmp_path):
    ends = []
    for _ in range(2):
        method, model = attach(adapter, backbone("roberta"))
        train(method, model, tmp_path)
        ends.append(dict(model.named_parameters()))
    assert all(torch.equal(weight, ends[1][path]) for path, weight in ends[0].items())


@pytest.fixture(params=["roberta", "bert", "deberta", "llama"])
def saved(request, adapter, backbone, tmp_path):
    """Return (family, adapter, trained model, folder of its file)."""
    method, model = attach(adapter, backbone(request.param), fraction=0.02)
    train(method, model, tmp_path / "run")
    method.save(model, tmp_path / "file")
    return request.param, method, model.eval(), tmp_path / "file"


def test_the_file_is_small_and_brings_the_weights_back_bit_for_bit(saved, backbone, tokens):
    family, method, model, folder = saved
    size = (folder / "adapter_model.safetensors").stat().st_size
    head = sum(w.numel() for path, w in model.named_parameters() if path not in model.moving_subset.seed)
    assert size < 8 * method.changed_weights(model) + 4 * head + 12_000  # int32 and float32 for each; names
    again = method.load(backbone(family), "SEQ_CLS", folder)
    expected = dict(model.named_parameters())
    assert {path for path, _ in again.named_parameters()} == set(expected)
    assert all(torch.equal(weight, expected[path]) for path, weight in again.named_parameters())
    assert method.changed_weights(again) == method.changed_weights(model)


def test_peft_alone_reads_the_file_and_can_switch_it_off(saved, backbone, tokens):
    family, _, model, folder = saved
    loaded = peft.PeftModel.from_pretrained(backbone(family).model, str(folder)).eval()
    expected, start = model(tokens).logits, backbone(family).model(tokens).logits
    assert torch.equal(loaded(tokens).logits, expected)
    with loaded.disable_adapter():
        assert torch.equal(loaded(tokens).logits, start)
    loaded.merge_adapter()
    assert torch.equal(loaded(tokens).logits, expected)
    loaded.unmerge_adapter()
    assert torch.equal(loaded(tokens).logits, expected)
    for path, weight in backbone(family).model.named_parameters():
        if path in model.moving_subset.seed:
            parent, _, name = path.rpartition(".")
            module = loaded.base_model.model.get_submodule(parent)
            assert torch.equal(getattr(module, "base_layer", module).get_parameter(name), weight)


def test_values_that_are_not_finite_are_not_merged_when_asked_to_look(adapter, backbone, tmp_path):
    method, model = attach(adapter, backbone("roberta"))
    with torch.no_grad():
        model.get_parameter("roberta.embeddings.word_embeddings.weight")[3, 4] = torch.nan
    method.save(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(backbone("roberta").model, str(tmp_path))
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        loaded.merge_adapter(safe_merge=True)


def test_rounded_weights_are_refused_with_the_remedy(adapter, backbone):
    with pytest.raises(ValueError, match=r"dst needs float32 weights, .* is torch.bfloat16.*Set model.dtype=fp32"):
        attach(adapter, backbone("roberta", dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fraction": 0.0}, r"fraction must be above 0 and at most 1, got 0\.0"),
        ({"fraction": 1.5}, r"fraction must be above 0 and at most 1, got 1\.5"),
        ({"silos": "head"}, "silos must be one of module, tensor, layer, global, got 'head'"),
        ({"distance": "cosine"}, "distance must be one of absolute, relative, got 'cosine'"),
        ({"moments": "half"}, "moments must be one of keep, clear, got 'half'"),
    ],
)
def test_settings_without_meaning_are_refused(adapter, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(adapter("dst"), **settings)


@pytest.mark.parametrize("saved", ["roberta"], indirect=True)
def test_an_adapter_for_each_row_is_refused_with_the_remedy(saved, backbone, tokens):
    model = peft.PeftModel.from_pretrained(backbone("roberta").model, str(saved[3])).eval()
    with pytest.raises(ValueError, match="choose one adapter with set_adapter"):
        model(tokens, adapter_names=["default"] * len(tokens))
