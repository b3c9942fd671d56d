"""The shipped encoder: loadable offline, small, and rebuilt by its script."""

import hashlib
import json

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lorta.embedded import EMBEDDED_REVISION, tasks, textbook
from lorta.embedded.pretraining import MAX_LENGTH, Recipe, pretrain

FOLDER = tasks.FINGERPRINTS.with_name("weights") / "tiny"
REBUILT_STEPS = 20


@pytest.fixture(scope="module")
def card():
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_card_describes_the_files_and_the_recipe_that_made_them(card):
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert card["recipe"] == vars(Recipe())
    assert card["textbook_revision"] == EMBEDDED_REVISION


def test_the_weights_are_bf16_and_below_two_megabytes():
    assert (FOLDER / "model.safetensors").stat().st_size < 2 * 2**20


def test_the_first_steps_of_pretraining_are_rebuilt(card):
    losses = [loss for loss, _ in pretrain(Recipe(), stop_after=REBUILT_STEPS)]
    # Sums in another order on another machine move the fourth digit after a few steps.
    assert_close(torch.tensor(losses), torch.tensor(card["first_losses"][:REBUILT_STEPS]), rtol=5e-3, atol=0.0)


def test_the_encoder_loads_in_float32_with_a_fresh_head():
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=2)
    assert type(model).__name__ == "RobertaForSequenceClassification"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_every_word_of_the_language_is_one_token(tokenizer):
    assert [word for word in textbook.words() if len(tokenizer.tokenize(word)) != 1] == []


@pytest.mark.parametrize("text", ["The Doghouse isn't far.", "naïve café, 東京 & 100 %", "tab\there"])
def test_any_text_is_encoded_without_unknowns_and_decoded_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_two_sentences_are_joined_as_roberta_joins_them(tokenizer):
    ids = tokenizer("dogs chase cats", "cats are chased by dogs")["input_ids"]
    marks = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert [ids[0], ids[4], ids[5], ids[-1]] == [marks[0], marks[1], marks[1], marks[1]]


def test_positions_reach_the_length_the_tokenizer_allows(tokenizer):
    assert tokenizer.model_max_length == MAX_LENGTH
    assert AutoConfig.from_pretrained(FOLDER).max_position_embeddings == MAX_LENGTH + 2
