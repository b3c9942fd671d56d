"""The shipped decoder: a real Llama with grouped-query heads, loadable offline, small, and rebuilt by its script."""

import hashlib
import json

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorta.embedded import primer, tasks
from lorta.embedded.causal_pretraining import MAX_LENGTH, CausalRecipe, pretrain_causal
from lorta.embedded.instructions import INSTRUCT_REVISION
from lorta.embedded.vocabulary import build_causal_tokenizer

FOLDER = tasks.FINGERPRINTS.with_name("weights") / "tiny_llama"
REBUILT_STEPS = 10


@pytest.fixture(scope="module")
def card():
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


def test_the_card_describes_the_files_and_the_recipe_that_made_them(card):
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert card["recipe"] == vars(CausalRecipe())
    assert card["textbook_revision"] == INSTRUCT_REVISION


def test_the_weights_are_below_two_megabytes_and_used_in_float32(model):
    assert (FOLDER / "model.safetensors").stat().st_size < 2 * 2**20
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_query_heads_share_keys_and_values(model):
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.num_attention_heads == 2 * model.config.num_key_value_heads


def test_the_first_steps_of_pretraining_are_rebuilt(card):
    losses = [loss for loss, _ in pretrain_causal(CausalRecipe(), stop_after=REBUILT_STEPS)]
    # Sums in another order on another machine move the fourth digit after a few steps.
    assert_close(torch.tensor(losses), torch.tensor(card["first_losses"][:REBUILT_STEPS]), rtol=5e-3, atol=0.0)


def test_the_shipped_tokenizer_is_the_one_the_code_builds(tokenizer):
    built = build_causal_tokenizer(primer.words(), MAX_LENGTH)
    assert tokenizer.get_vocab() == built.get_vocab()
    assert tokenizer.chat_template == built.chat_template
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")


def test_every_word_is_one_token_after_a_space_and_at_the_start_of_a_line(tokenizer):
    broken = [
        word for word in primer.words() for text in (f"the {word}", f"the\n{word}") if split(tokenizer, text, word)
    ]
    assert broken == []


def split(tokenizer, text, word):
    return tokenizer.decode(tokenizer(text)["input_ids"][-1:]).strip() != word


@pytest.mark.parametrize(
    "text",
    ["The Doghouse isn't far.", "naïve café, 東京 & 100 %", "tab\there", "line one\n\n  line two\n", "```py\nx=1```"],
)
def test_any_text_is_encoded_and_decoded_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@torch.no_grad()
def test_the_decoder_carries_exercises_out_after_a_cue(model, tokenizer):
    prompts = {
        "passive : the dogs chase cats =>": " the cats are chased by dogs",
        "swap : the nurses help vans =>": " the vans help nurses",
        "kind : the dog =>": " the animal",
    }
    for prompt, answer in prompts.items():
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        wanted = len(tokenizer(answer, add_special_tokens=False)["input_ids"])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=wanted, do_sample=False)
        assert tokenizer.decode(found[0, ids.shape[1] :]) == answer
