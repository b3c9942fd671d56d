"""PELA: the low-rank pairs, the intermediate stage and its cache, and what is saved."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaForCausalLM, RobertaForMaskedLM

import baselines.pela.stage as stage_module
from baselines.pela.adapter import ranks
from baselines.pela.low_rank import compress
from baselines.pela.stage import IGNORED, Stage, Words, batches, exercise, feature_loss, recover, with_language_head
from lorta.geometry import ModelContext

FAMILIES = ["roberta", "bert", "deberta", "llama"]
MASK = 5


@pytest.fixture
def base(backbone, tmp_path):
    """Return build(family): a backbone with rows, a vocabulary with a mask, a cache, and no checkpoint."""

    def build(family="roberta", **more):
        found = backbone(family)
        found.tokenizer = SimpleNamespace(mask_token_id=MASK, all_special_ids=[0, 1, 2, MASK])
        generator = torch.Generator().manual_seed(4)
        rows = [torch.randint(6, 48, (5 + i % 4,), generator=generator).tolist() for i in range(24)]
        found.rows, found.files, found.cache = {"input_ids": rows}, None, tmp_path / "cache"
        vars(found).update(more)
        return found

    return build


@pytest.fixture
def checkpoint(tmp_path):
    """Return save(class, base): write a language model around the backbone's weights, as its checkpoint."""

    def save(language_class, base):
        torch.manual_seed(8)
        model = language_class(base.model.config)
        getattr(model, model.base_model_prefix).load_state_dict(base.model.base_model.state_dict())
        model.save_pretrained(tmp_path / "checkpoint")
        base.files = SimpleNamespace(location=str(tmp_path / "checkpoint"), revision=None, fingerprint="this one")
        return base

    return save


def settings(adapter, **changes):
    return Stage(**(adapter("pela").stage | changes))


def test_a_ratio_that_leaves_full_rank_leaves_the_function(adapter, base, tokens):
    method = replace(adapter("pela"), ratio=0.4, stage=adapter("pela").stage | {"epochs": 0})
    assert_close(method.attach(base(), "SEQ_CLS")(tokens).logits, base().model(tokens).logits, atol=1e-4, rtol=1e-4)


def test_features_of_equal_models_are_no_distance_apart_and_padding_does_not_count():
    torch.manual_seed(0)
    hidden = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    words = torch.tensor([[True, True, False], [True, True, True]])
    padded = [hidden[0].clone(), hidden[1].clone()]
    padded[0][0, 2] = 100.0
    assert feature_loss(padded, hidden, words) == 0
    padded[1][1, 1, 2] += 3.0
    assert float(feature_loss(padded, hidden, words)) == pytest.approx(9.0 / (5 * 4) / 2)


def test_masking_takes_the_asked_share_of_ordinary_words_and_targets_them_alone():
    torch.manual_seed(0)
    ids = torch.randint(6, 48, (200, 50))
    ids[:, 0], ids[:, -5:] = 1, 0
    real = torch.ones_like(ids, dtype=torch.bool)
    real[:, -5:] = False
    shown, targets = exercise(ids, real, Words(MASK, (0, 1, MASK), 48, 0), 0.15)
    chosen = targets != IGNORED
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(shown[~chosen], ids[~chosen])
    assert not chosen[:, 0].any() and not chosen[:, -5:].any()
    assert chosen[:, 1:-5].float().mean() == pytest.approx(0.15, abs=0.02)
    assert (shown[chosen] == MASK).float().mean() == pytest.approx(0.8 + 0.1 / 48, abs=0.04)
    assert (shown[chosen] == ids[chosen]).float().mean() == pytest.approx(0.1 + 0.1 / 48, abs=0.03)


def test_a_decoder_is_shown_the_words_and_asked_for_all_but_padding():
    ids, real = torch.tensor([[7, 8, 9], [7, 8, 0]]), torch.tensor([[True, True, True], [True, True, False]])
    shown, targets = exercise(ids, real, Words(None, (), 48, 0), 0.15)
    assert torch.equal(shown, ids)
    assert targets.tolist() == [[7, 8, 9], [7, 8, IGNORED]]


def test_every_row_is_read_once_an_epoch(adapter, base):
    rows = base().rows["input_ids"]
    found = list(batches(rows, Words(None, (), 48, 0), settings(adapter, epochs=2, batch_size=7)))
    texts = [
        ids[mask.bool()].tolist() for shown, attention, _ in found for ids, mask in zip(shown, attention, strict=True)
    ]
    assert len(found) == 2 * 4
    assert sorted(texts) == sorted(rows * 2)
    assert texts[:24] != texts[24:]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stage_brings_the_features_nearer_to_the_originals(adapter, base, family, tokens):
    distance = {}
    for epochs in (0, 30):
        found = base(family, cache=None)
        expected = found.model.base_model(tokens).last_hidden_state
        method = replace(adapter("pela"), stage=adapter("pela").stage | {"epochs": epochs, "perturbation_weight": 0.0})
        model = method.attach(found, "SEQ_CLS")
        distance[epochs] = float((model.base_model(tokens).last_hidden_state - expected).pow(2).mean())
        assert not model.training
    assert distance[30] < 0.9 * distance[0]


@pytest.mark.parametrize(("family", "language_class"), [("roberta", RobertaForMaskedLM), ("llama", LlamaForCausalLM)])
def test_the_checkpoints_own_language_head_teaches_where_there_is_one(
    adapter, base, checkpoint, family, language_class
):
    found = checkpoint(language_class, base(family))
    only_language = adapter("pela").stage | {"epochs": 20, "feature_weight": 0.0, "perturbation_weight": 0.0}
    method = replace(adapter("pela"), stage=only_language | {"language_weight": 1.0})
    card = method.attach(found, "SEQ_CLS").intermediate_stage
    assert card["language_head"] is True
    assert 0 < card["last_loss"] < card["first_loss"]
    untaught = method.attach(base(family), "SEQ_CLS").intermediate_stage
    assert untaught["language_head"] is False
    assert untaught["last_loss"] == 0


def test_a_checkpoint_without_language_head_teaches_no_language(adapter, base, tmp_path):
    found = base()
    found.model.save_pretrained(tmp_path / "checkpoint")
    found.files = SimpleNamespace(location=str(tmp_path / "checkpoint"), revision=None, fingerprint="this one")
    assert adapter("pela").attach(found, "SEQ_CLS").intermediate_stage["language_head"] is False


def test_the_stage_is_trained_once_and_then_cached(adapter, base, monkeypatch):
    calls = []
    real = stage_module.pretrain
    monkeypatch.setattr(stage_module, "pretrain", lambda *arguments: calls.append(1) or real(*arguments))
    results = []
    for _ in range(2):
        found = base()
        torch.manual_seed(9)
        model = adapter("pela").attach(found, "SEQ_CLS")
        results.append((dict(model.named_parameters()), model.intermediate_stage, torch.get_rng_state()))
    assert len(calls) == 1
    (trained, card, after), (cached, card_again, after_again) = results
    assert all(torch.equal(weight, cached[path]) for path, weight in trained.items())
    assert card == card_again and card["steps"] == 5
    assert torch.equal(after, after_again)
    files = sorted((base().cache / "pela").iterdir(), key=lambda file: file.suffix)
    assert [file.suffix for file in files] == [".json", ".safetensors"]
    assert len({file.stat().st_mode for file in files}) == 1  # what others may read of the card they may of the weights


@pytest.mark.parametrize("change", ["text", "base", "setting", "ratio", "checkpoint", "nothing"])
def test_the_cache_is_keyed_by_everything_the_stage_depends_on(adapter, base, change):
    keys = []
    for changed in (False, True):
        found, method = base(), adapter("pela")
        if changed and change == "text":
            found.rows["input_ids"][3][1] += 1
        if changed and change == "base":
            with torch.no_grad():
                found.model.base_model.embeddings.word_embeddings.weight[7, 7] += 1e-3
        if changed and change == "setting":
            method = replace(method, stage=method.stage | {"feature_weight": 0.5})
        if changed and change == "ratio":
            method = replace(method, ratio=3.0)
        if changed and change == "checkpoint":
            found.model.save_pretrained(found.cache / "checkpoint")
            found.files = SimpleNamespace(location=str(found.cache / "checkpoint"), revision=None, fingerprint="other")
        keys.append(method.attach(found, "SEQ_CLS").intermediate_stage["key"])
    assert (keys[0] == keys[1]) == (change == "nothing")


def test_labels_and_the_fresh_head_are_no_part_of_the_key(adapter, base):
    found = base()
    torch.nn.init.normal_(found.model.classifier.dense.weight)
    found.rows["labels"] = [1] * 24
    keys = [adapter("pela").attach(one, "SEQ_CLS").intermediate_stage["key"] for one in (base(), found)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_smaller_model_is_saved_whole_and_comes_back(adapter, base, randomise, tokens, tmp_path, family):
    method = adapter("pela")
    model = method.attach(base(family), "SEQ_CLS")
    randomise(model)
    method.save(model, tmp_path / "file")
    again = method.load(base(family), "SEQ_CLS", tmp_path / "file")
    assert torch.equal(again.eval()(tokens).logits, model.eval()(tokens).logits)
    assert again.intermediate_stage == model.intermediate_stage
    assert all(weight.requires_grad for weight in again.parameters())
    size = (tmp_path / "file" / "compressed_model.safetensors").stat().st_size
    assert 0 < size - 4 * sum(weight.numel() for weight in model.parameters()) < 12_000  # names
    assert json.loads((tmp_path / "file" / "pela.json").read_text())["ratio"] == method.ratio


def test_a_file_of_another_ratio_is_refused(adapter, base, tmp_path):
    method = adapter("pela")
    method.save(method.attach(base(), "SEQ_CLS"), tmp_path)
    with pytest.raises(ValueError, match=r"compressed at ratio 2.0, not 3.0: load it with adapter.ratio=2.0"):
        replace(method, ratio=3.0).load(base(), "SEQ_CLS", tmp_path)


def test_what_cannot_be_pre_trained_is_refused_in_a_sentence(adapter, base, backbone):
    method = adapter("pela")
    with pytest.raises(ValueError, match=r"this backbone has no rows: set backbone.rows"):
        method.attach(base(rows=None), "SEQ_CLS")
    with pytest.raises(ValueError, match="tokenizer has no mask token: choose another adapter"):
        method.attach(base(tokenizer=None), "SEQ_CLS")
    with pytest.raises(ValueError, match=r"pre-trains in float32, .*: set model\.dtype=fp32"):
        method.attach(base(model=backbone("roberta", dtype=torch.bfloat16).model), "SEQ_CLS")
    with pytest.raises(
        ValueError, match=r"epochs >= 0, batch_size >= 1 and 0 < masked_words < 1, got -1, 32 and 0\.15"
    ):
        settings(adapter, epochs=-1)


def test_a_ratio_without_rank_is_unsupported_and_a_negative_one_refused(adapter, backbone):
    geometry = backbone("roberta").geometry
    assert adapter("pela").unsupported(ModelContext(geometry)) is None
    assert replace(adapter("pela"), ratio=13.0).unsupported(ModelContext(geometry)) == (
        "pela at ratio 13.0 leaves q, k, v, o no rank: lower adapter.ratio."
    )
    with pytest.raises(ValueError, match=r"ratio must be above 0, got -1\.0"):
        replace(adapter("pela"), ratio=-1.0)


def test_a_tied_decoder_belongs_to_the_students_embeddings(base, checkpoint):
    found = checkpoint(RobertaForMaskedLM, base())
    student = found.model.base_model
    model = with_language_head(found, student, causal=False)
    assert model.roberta is student
    assert model.lm_head.decoder.weight is student.embeddings.word_embeddings.weight


def test_the_original_is_not_moved_by_the_stage(adapter, base):
    found, original = base(), base().model.base_model
    before = {path: weight.detach().clone() for path, weight in original.named_parameters()}
    compress(found.model, found.geometry, ranks(found.geometry, 2.0))
    start = {path: weight.detach().clone() for path, weight in found.model.base_model.named_parameters()}
    card = recover(found, original, 2.0, settings(adapter, epochs=3, batch_size=10))
    assert (card["rows"], card["steps"]) == (24, 9)
    assert all(torch.equal(weight, before[path]) for path, weight in original.named_parameters())
    moved = {path for path, weight in found.model.base_model.named_parameters() if not torch.equal(weight, start[path])}
    assert moved == set(start)
