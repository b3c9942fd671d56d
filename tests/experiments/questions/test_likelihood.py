"""Option log-probabilities against a plain sum over each text alone."""

import pytest
import torch

from experiments.questions.likelihood import option_scores
from tests.experiments.letters import small_llama

ROWS = [
    [([5, 6, 7], [8, 9]), ([5, 6, 7], [10])],
    [([11], [12, 13, 14, 15]), ([11], [16]), ([11], [17, 18])],
    [([20, 21, 22, 23, 24, 25], [26]), ([20, 21, 22, 23, 24, 25], [27, 28])],
]


@pytest.fixture(scope="module")
def model():
    return small_llama()


def naive(model, prompt, option):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *option]])).logits[0]
    steps = range(len(prompt) - 1, len(prompt) + len(option) - 1)
    return sum(logits[step].log_softmax(-1)[token].item() for step, token in zip(steps, option, strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_sums_are_those_of_each_option_alone(model, batch_size):
    found = option_scores(model, 0, ROWS, batch_size, "sum", "fp32")
    for row, scores in zip(ROWS, found, strict=True):
        assert scores == pytest.approx([naive(model, *option) for option in row], abs=1e-4)


def test_means_are_sums_by_length(model):
    sums, means = (option_scores(model, 0, ROWS, 4, how, "fp32") for how in ("sum", "mean"))
    for row, total, mean in zip(ROWS, sums, means, strict=True):
        expected = [value / len(option) for value, (_, option) in zip(total, row, strict=True)]
        assert mean == pytest.approx(expected, abs=1e-5)


def test_the_padding_token_plays_no_part(model):
    zero, other = (option_scores(model, pad, ROWS, 16, "sum", "fp32") for pad in (0, 40))
    for first, second in zip(zero, other, strict=True):
        assert first == pytest.approx(second, abs=1e-5)


def test_virtual_tokens_of_prompt_tuning_do_not_shift_the_answer():
    from peft import PromptTuningConfig, get_peft_model

    torch.manual_seed(0)
    tuned = get_peft_model(small_llama(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    prompt, option = ROWS[0][0]
    with torch.no_grad():
        logits = tuned(input_ids=torch.tensor([[*prompt, *option]])).logits[0, 3:]
    expected = sum(logits[len(prompt) - 1 + at].log_softmax(-1)[token].item() for at, token in enumerate(option))
    assert option_scores(tuned, 0, [[ROWS[0][0]]], 1, "sum", "fp32")[0] == pytest.approx([expected], abs=1e-4)
