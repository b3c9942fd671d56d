"""What a decoder reads, and where in it the answer begins."""

import pytest
from transformers import AutoTokenizer

from experiments.prompts import Request, common_prefix, encode, prompt_text
from lorta.embedded import tasks

FOLDER = tasks.FINGERPRINTS.with_name("weights") / "tiny_llama"
ASKED = Request("Rewrite the sentence in the passive voice.", "dogs chase cats")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_alpacas_prompt_ends_in_the_colon_that_the_answer_follows(tokenizer):
    encoded = encode("alpaca", ASKED, "cats are chased by dogs", "", tokenizer)
    assert decoded(tokenizer, encoded.prompt) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\nRewrite the sentence in the "
        "passive voice.\n\n### Input:\ndogs chase cats\n\n### Response:"
    )
    assert decoded(tokenizer, encoded.answer) == "cats are chased by dogs</s>"


def test_alpacas_prompt_without_an_input_has_no_input_section(tokenizer):
    text = prompt_text("alpaca", Request("Name a colour."), tokenizer)
    assert "### Input" not in text and "paired with an input" not in text
    assert text.endswith("### Instruction:\nName a colour.\n\n### Response:")


def test_a_chat_template_marks_the_end_itself(tokenizer):
    encoded = encode("chat", Request("hi", system="be brief"), "hello", "", tokenizer)
    assert decoded(tokenizer, encoded.prompt) == "<s>### System:\nbe brief\n\n### User:\nhi\n\n### Assistant:\n"
    assert decoded(tokenizer, encoded.answer) == "hello</s>"


def test_a_chat_template_that_is_not_there_is_refused_with_what_to_do(tokenizer):
    bare = AutoTokenizer.from_pretrained(FOLDER)
    bare.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template; try task\.template=alpaca"):
        encode("chat", ASKED, "x", "", bare)


def test_the_releases_llama_template_loses_the_system_message_and_keeps_the_leftover_mark(tokenizer):
    encoded = encode("llama2", Request("why", system="be kind"), "so", "<|im_end|>\n", tokenizer)
    assert decoded(tokenizer, encoded.prompt) == "<s>[INST] why [/INST]"
    assert decoded(tokenizer, encoded.answer) == "so<|im_end|>\n</s>"


def test_an_empty_answer_is_the_end_mark_alone(tokenizer):
    assert encode("alpaca", ASKED, "", "", tokenizer).answer == [tokenizer.eos_token_id]


@pytest.mark.parametrize("template", ["alpaca", "chat", "plain", "llama2"])
def test_prompt_and_answer_together_are_the_whole_text(tokenizer, template):
    text = "naïve café: 100 %\nsecond line"
    encoded = encode(template, ASKED, text, "", tokenizer)
    whole = decoded(tokenizer, [*encoded.prompt, *encoded.answer])
    assert whole == f"<s>{prompt_text(template, ASKED, tokenizer).removeprefix('<s>')}{text}</s>"


@pytest.mark.parametrize(
    ("first", "second", "shared"), [([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3], 1), ([2], [1], 0), ([], [1], 0)]
)
def test_the_common_prefix_ends_where_two_sequences_part(first, second, shared):
    assert common_prefix(first, second) == shared
