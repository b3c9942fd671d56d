"""Laws that every file of conf/adapter/ keeps on an encoder, and on a decoder with grouped-query heads in two uses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lorta.diagnostics.forgetting import is_prompt
from lorta.diagnostics.merging import check_merging
from lorta.training.metering import count_parameters, is_head
from tests.contract.backbones import (
    ADAPTERS,
    ARCHITECTURES,
    adapter,
    attach,
    backbone,
    batch,
    logits,
    saved,
    task_type,
    train_steps,
    unsupported,
)

HASH_SEEDS = ("1",)  # this process has another one
WITHOUT_MERGE = {  # own weights, a nonlinearity between the factors, or no matrix at all
    "full",
    "bitfit",
    "head_only",
    "dst",
    "pela",
    "loretta_adp",
    "prefix_tuning",
    "prompt_tuning",
    "p_tuning",
}
WITHOUT_COUNT = {"full", "dst", "pela"}  # everything trains: vocabulary and positions are no part of the geometry
PAIRS = [(name, architecture) for name in ADAPTERS for architecture in ARCHITECTURES]


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request):
    name, architecture = request.param
    found = adapter(name)
    if sentence := unsupported(found, architecture):
        pytest.skip(sentence)
    return found, architecture


def test_adapter_changes_nothing_at_initialisation(pair):
    method, architecture = pair
    if not method.identity_at_start:
        pytest.skip(f"{method.name} does not promise it: conf/adapter/{method.name}.yaml says so and why")
    assert_close(logits(attach(method, architecture)), logits(backbone(architecture).model))


def test_only_adapter_and_head_move_and_each_gets_a_gradient(pair):
    method, architecture = pair
    model = attach(method, architecture)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    largest = train_steps(model, method)
    silent = [name for name, gradient in largest.items() if gradient == 0.0]
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert silent == []
    assert moved == set(largest)
    head = any(is_head(name, backbone(architecture).geometry.architecture) for name in moved)
    assert head == (architecture != "llama_lm")


def test_closed_form_count_equals_the_built_model(pair):
    method, architecture = pair
    geometry = backbone(architecture).geometry
    expected = method.parameters(geometry)
    counted = count_parameters(attach(method, architecture), geometry.architecture)
    assert counted.trainable > 0
    if expected is None:
        assert method.name in WITHOUT_COUNT
    else:
        assert counted.adapter == expected


def test_same_seed_gives_the_same_weights(pair):
    method, architecture = pair
    first, second = (dict(attach(method, architecture).named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_merged_equals_unmerged(pair):
    method, architecture = pair
    if method.name in WITHOUT_MERGE:
        pytest.skip(f"{method.name} cannot be merged")
    model = attach(method, architecture)
    train_steps(model, method)
    expected = logits(model)
    model.merge_adapter()
    assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    model.unmerge_adapter()
    assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    assert check_merging(model, batch()["input_ids"].tolist(), padding=1).largest_difference < 1e-5


@pytest.mark.parametrize("name", sorted(WITHOUT_MERGE))
def test_merge_check_refuses_what_cannot_be_merged_with_a_sentence(name):
    method = adapter(name)
    architecture = next(one for one in ARCHITECTURES if unsupported(method, one) is None)
    with pytest.raises((ValueError, NotImplementedError)) as refused:
        check_merging(attach(method, architecture), batch()["input_ids"].tolist(), padding=1)
    assert len(str(refused.value).split()) > 4


def test_the_backbone_is_adapted_in_place(pair):
    """`forgetting` takes the trained layers from the backbone; virtual tokens are no layers, and it knows them."""
    method, architecture = pair
    untrained = backbone(architecture)
    model = method.attach(untrained, task_type(architecture))
    if is_prompt(model):
        return
    train_steps(model, method, steps=1)
    assert_close(logits(untrained.model), logits(model), atol=1e-6, rtol=1e-6)


def test_every_adapter_attaches_somewhere_and_says_why_elsewhere():
    for name in ADAPTERS:
        sentences = [unsupported(adapter(name), architecture) for architecture in ARCHITECTURES]
        assert None in sentences, f"{name} attaches to none of {ARCHITECTURES}"
        assert all(sentence is None or len(sentence.split()) > 4 for sentence in sentences)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory) -> Path:
    """Every supported pair, trained a little and saved, with its logits."""
    folder = tmp_path_factory.mktemp("saved")
    for name, architecture in PAIRS:
        method = adapter(name)
        if unsupported(method, architecture) is None:
            model = attach(method, architecture)
            train_steps(model, method)
            method.save(model, saved(folder, name, architecture))
            torch.save(logits(model), folder / f"{saved(folder, name, architecture).name}.here.pt")
    return folder


@pytest.mark.parametrize("hash_seed", HASH_SEEDS)
def test_a_new_process_loads_the_same_model(trained_folder, hash_seed):
    """Bases rebuilt from an SVD (KaSA, PiSSA) are the same to a merge's rounding; a wrong factor is off by 1e-2."""
    command = [sys.executable, "-m", "tests.contract.load_and_print", str(trained_folder), hash_seed]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    expected = sorted(trained_folder.glob("*.here.pt"))
    assert len(expected) >= len(ADAPTERS)
    for file in expected:
        found = torch.load(file.with_name(file.name.replace(".here.", f".{hash_seed}.")), weights_only=True)
        assert_close(found, torch.load(file, weights_only=True), atol=1e-5, rtol=1e-5, msg=file.name)


def test_no_pickled_weights_are_written(trained_folder):
    written = {path.suffix for path in trained_folder.glob("*/*") if path.is_file()}
    assert ".safetensors" in written
    assert written.isdisjoint({".bin", ".pt", ".pkl"})
