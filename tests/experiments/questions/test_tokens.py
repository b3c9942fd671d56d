"""Where a prompt ends and an answer begins, what is learnt, and what is cut."""

import pytest

from experiments.questions.formats import Question
from experiments.questions.tokens import encode, evaluation_row, training_rows
from tests.experiments.letters import letter_tokenizer

QUESTION = Question("ab c", " yes", ("yes",), (" yes", " no"), ("yes", "no"), (0,))


@pytest.fixture(scope="module")
def tokenizer():
    return letter_tokenizer()


def training_row(tokenizer, max_length, loss_on):
    (row,), _ = training_rows(tokenizer, [QUESTION], max_length, loss_on)
    return row


def text(tokenizer, ids):
    return tokenizer.decode(ids)


def test_prompt_and_answer_together_are_the_text(tokenizer):
    encoded = encode(tokenizer, "ab c", " yes", 64)
    assert (text(tokenizer, encoded.prompt), text(tokenizer, encoded.continuation)) == ("ab c", " yes")
    assert not encoded.cut


def test_the_answer_alone_is_learnt_with_its_end(tokenizer):
    row = training_row(tokenizer, 64, "answer")
    learnt = [token for token in row["labels"] if token != -100]
    assert text(tokenizer, learnt) == " yes<eos>"
    assert row["labels"][-len(learnt) :] == row["input_ids"][-len(learnt) :]
    assert training_row(tokenizer, 64, "all")["labels"] == row["input_ids"]


@pytest.mark.parametrize("max_length", [6, 7, 8])
def test_of_what_is_too_long_the_prompts_beginning_goes(tokenizer, max_length):
    row = training_row(tokenizer, max_length, "answer")
    assert text(tokenizer, row["input_ids"]) == "ab c yes<eos>"[-(max_length + len("<eos>") - 1) :]
    assert len(row["input_ids"]) == max_length


def test_an_answer_longer_than_everything_keeps_one_token_of_the_prompt(tokenizer):
    encoded = encode(tokenizer, "ab c", " yes", 3)
    assert text(tokenizer, encoded.prompt) + text(tokenizer, encoded.continuation) == "c y"
    assert encoded.cut


def test_the_begin_mark_stays_when_a_prompt_is_cut():
    tokenizer = letter_tokenizer(bos=True)
    whole, cut = (encode(tokenizer, "ab c", " yes", length) for length in (64, 7))
    assert whole.prompt[0] == cut.prompt[0] == tokenizer.bos_token_id
    assert text(tokenizer, cut.prompt[1:]) == " c"
    assert len(cut.prompt + cut.continuation) == 7


def test_an_evaluation_row_holds_every_option_and_says_what_was_cut(tokenizer):
    row = evaluation_row(tokenizer, 5, QUESTION, 64)
    assert [text(tokenizer, option) for _, option in row.option_tokens] == [" yes", " no"]
    assert text(tokenizer, row.prompt_tokens) == "ab c"
    assert row.told == {"idx": 5, "references": ["yes"], "names": ["yes", "no"], "correct": [0], "cut": False}
    assert evaluation_row(tokenizer, 5, QUESTION, 7).told["cut"]


def test_options_that_are_cut_to_the_same_tokens_cannot_be_told(tokenizer):
    question = Question("ab c", " yes", ("yes",), (" yes", " yet"), ("yes", "yet"), (0,))
    assert evaluation_row(tokenizer, 5, question, 64).can_be_told
    assert not evaluation_row(tokenizer, 5, question, 4).can_be_told


class Pairs:
    """Reads two letters at a time: the last of a prompt and the first of an answer can be one token."""

    bos_token_id, eos_token_id = None, 0

    def __call__(self, text):
        return {"input_ids": [sum(map(ord, text[place : place + 2])) for place in range(0, len(text), 2)]}


def test_a_continuation_that_is_one_token_with_the_prompts_end_is_not_lost():
    encoded = encode(Pairs(), "abc", "d", 8)
    assert (encoded.prompt, encoded.continuation) == ([ord("a") + ord("b")], [ord("c") + ord("d")])
