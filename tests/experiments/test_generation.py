"""Generation by transformers: row order, batch size, stop rules, and no setting but ours."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.answers import write_answers
from experiments.generation import Generation, write
from tests.experiments.letters import letter_tokenizer, small_llama

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [3, 4], [20, 21, 22, 23]]


@pytest.fixture(scope="module")
def tokenizer():
    return letter_tokenizer()


@pytest.fixture
def model():
    return small_llama()


def texts(model, tokenizer, prompts=PROMPTS, **settings):
    values: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 2} | settings
    return [found.text for found in write(model, tokenizer, prompts, Generation(**values))]


def greedy(model, prompt: list[int], tokens: int) -> list[int]:
    """One token after the other, without cache, padding or batch: what `generate` must find."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 1:
            break
    return ids[len(prompt) :]


def test_answers_are_the_most_likely_tokens_of_each_row_alone(model, tokenizer):
    model.eval()
    expected = [tokenizer.decode(greedy(model, prompt, 8), skip_special_tokens=True) for prompt in PROMPTS]
    assert len(set(expected)) == len(PROMPTS)
    assert texts(model, tokenizer) == expected


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_answers_do_not_depend_on_the_batch_size(model, tokenizer, batch_size):
    assert texts(model, tokenizer, batch_size=batch_size) == texts(model, tokenizer)


def test_answers_come_in_the_order_of_the_prompts(model, tokenizer):
    assert texts(model, tokenizer, PROMPTS[::-1]) == texts(model, tokenizer)[::-1]


def test_the_checkpoints_own_generation_settings_move_nothing(model, tokenizer):
    expected = texts(model, tokenizer)
    own = model.generation_config
    own.repetition_penalty, own.do_sample, own.temperature, own.max_new_tokens = 50.0, True, 9.0, 2
    assert texts(model, tokenizer) == expected
    assert model.generation_config is own and own.repetition_penalty == 50.0


def test_an_answer_ends_before_its_stop_string(model, tokenizer):
    whole = texts(model, tokenizer)
    stop = whole[0][2:4]
    found = write(model, tokenizer, PROMPTS, Generation(max_new_tokens=8, batch_size=2, stop=(stop,)))
    assert found[0].text == whole[0].partition(stop)[0] != whole[0]
    assert found[0].stopped and found[0].tokens == 4
    assert [one.text for one in found] == [text.partition(stop)[0] for text in whole]


def test_an_answer_is_cut_at_its_longest(model, tokenizer):
    found = write(model, tokenizer, PROMPTS[:1], Generation(max_new_tokens=2, batch_size=1))
    assert (found[0].tokens, found[0].stopped) == (2, False)


def test_sampling_follows_the_seed(model, tokenizer):
    settings = Generation(max_new_tokens=8, batch_size=5, temperature=2.0)
    first, again, other = (write(model, tokenizer, PROMPTS, settings, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"temperature": -1.0}, "temperature"),
        ({"padding_side": "right"}, "must be left"),
    ],
)
def test_impossible_settings_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Generation(**({"max_new_tokens": 1, "batch_size": 1} | wrong))


def test_an_empty_prompt_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="at least one token"):
        texts(model, tokenizer, [[]])


def test_answers_for_reading_end_where_the_tokenizer_says(model, tokenizer, tmp_path, monkeypatch):
    """A checkpoint's own settings can name another end of text, or none: then an answer would run on."""
    asked = []
    monkeypatch.setattr(model, "generate", lambda **given: asked.append(given) or given["input_ids"])
    model.generation_config.eos_token_id = None
    rows = {"idx": [0], "input_ids": [[5, 6, 7]], "labels": [[-100, -100, 7]]}
    settings: Any = SimpleNamespace(precision="fp32")
    backbone: Any = SimpleNamespace(tokenizer=tokenizer)
    write_answers(model, backbone, rows, settings, 4, tmp_path / "answers.jsonl")
    assert [given["eos_token_id"] for given in asked] == [tokenizer.eos_token_id]
