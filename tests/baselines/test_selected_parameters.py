"""Full fine-tuning, BitFit and the head alone."""

from types import SimpleNamespace

import pytest
import torch

from baselines.selected_parameters import SelectedParameters
from lorta.geometry import ModelContext

FAMILIES = ["roberta", "bert", "deberta", "llama"]
HEADS = {"roberta": ("classifier",), "bert": ("classifier",), "deberta": ("pooler", "classifier"), "llama": ("score",)}


def trained_paths(model):
    return {path for path, weight in model.named_parameters() if weight.requires_grad}


def head_paths(model, family):
    return {path for path, _ in model.named_parameters() if path.split(".")[0] in HEADS[family]}


@pytest.mark.parametrize("family", FAMILIES)
def test_head_only_trains_the_head_and_nothing_else(adapter, backbone, family):
    model = adapter("head_only").attach(backbone(family), "SEQ_CLS")
    assert trained_paths(model) == head_paths(model, family) != set()


@pytest.mark.parametrize("family", ["roberta", "bert", "deberta"])
def test_bitfit_trains_every_bias_and_the_head(adapter, backbone, family):
    model = adapter("bitfit").attach(backbone(family), "SEQ_CLS")
    biases = {path for path, _ in model.named_parameters() if path.split(".")[-1] == "bias"}
    assert trained_paths(model) == biases | head_paths(model, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_trains_every_weight(adapter, backbone, family):
    model = adapter("full").attach(backbone(family), "SEQ_CLS")
    assert trained_paths(model) == {path for path, _ in model.named_parameters()}


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_bitfit_counts_the_biases_it_trains(adapter, backbone, family):
    method, base = adapter("bitfit"), backbone(family)
    sizes = {path: weight.numel() for path, weight in base.model.named_parameters()}
    trained = trained_paths(method.attach(base, "SEQ_CLS")) - head_paths(base.model, family)
    assert method.parameters(base.geometry) == sum(sizes[path] for path in trained)


def test_bitfit_refuses_a_model_without_biases_in_a_sentence(adapter, backbone):
    assert adapter("bitfit").unsupported(ModelContext(backbone("llama").geometry)) == (
        "bitfit trains biases, and llama has none: choose another adapter."
    )
    assert adapter("bitfit").unsupported(ModelContext(backbone("roberta").geometry)) is None
    assert adapter("full").unsupported(ModelContext(backbone("llama").geometry)) is None


@pytest.mark.parametrize("name", ["full", "bitfit", "head_only"])
def test_what_was_trained_comes_back_on_a_fresh_backbone(adapter, backbone, tokens, randomise, tmp_path, name):
    method = adapter(name)
    model = method.attach(backbone("roberta"), "SEQ_CLS")
    randomise(model)
    method.save(model, tmp_path)
    again = method.load(backbone("roberta"), "SEQ_CLS", tmp_path)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert trained_paths(again) == trained_paths(model)


def test_a_file_of_another_selection_is_refused(adapter, backbone, tmp_path):
    adapter("head_only").save(adapter("head_only").attach(backbone("roberta"), "SEQ_CLS"), tmp_path)
    with pytest.raises(ValueError, match="written for another model or selection; present on one side only: roberta"):
        adapter("bitfit").load(backbone("roberta"), "SEQ_CLS", tmp_path)


def test_an_unknown_selection_is_refused():
    with pytest.raises(ValueError, match="selects must be one of everything, biases, nothing, got 'weights'"):
        SelectedParameters("mine", "weights", 1e-3, 1e-3)


def saved(backbone, folder):
    """Return a backbone that came from a checkpoint on disk."""
    base = backbone("roberta")
    base.model.save_pretrained(folder)
    return SimpleNamespace(model=type(base.model).from_pretrained(folder), geometry=base.geometry)


@pytest.mark.parametrize("name", ["full", "bitfit", "head_only"])
def test_changed_weights_are_those_that_differ_from_the_checkpoint(adapter, backbone, tmp_path, name):
    method = adapter(name)
    model = method.attach(saved(backbone, tmp_path), "SEQ_CLS")
    assert method.changed_weights(model) == 0
    with torch.no_grad():
        model.classifier.dense.weight += 1.0  # the head does not count
        for path in ("roberta.encoder.layer.0.attention.self.query.bias", "roberta.embeddings.LayerNorm.bias"):
            model.get_parameter(path)[:3] += 1.0
    assert method.changed_weights(model) == {"full": 6, "bitfit": 6, "head_only": 0}[name]


def test_without_a_checkpoint_nobody_knows_what_changed(adapter, backbone):
    method = adapter("full")
    assert method.changed_weights(method.attach(backbone("roberta"), "SEQ_CLS")) is None
