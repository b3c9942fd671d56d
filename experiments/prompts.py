"""From a row to what a decoder reads: prompt templates, and where in the tokens the answer begins. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Template = Literal["alpaca", "chat", "plain", "llama2"]

# Taori et al. 2023 (tatsu-lab/stanford_alpaca, train.py), and the same in LoRTA's release (lit_gpt): the answer follows
# the colon at once, with neither space nor line break
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


@dataclass(frozen=True)
class Request:
    """What is asked: a question or instruction, maybe with an input, maybe under a system message."""

    instruction: str
    input: str = ""
    system: str = ""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt, and of an answer up to and with its end mark."""

    prompt: list[int]
    answer: list[int]


def prompt_text(template: Template, request: Request, tokenizer: Any) -> str:
    """Return the prompt, without the tokens that the tokenizer adds. Raises ValueError for a tokenizer without one."""
    question = f"{request.instruction}\n{request.input}" if request.input else request.instruction
    if template == "alpaca":
        text = ALPACA_WITH_INPUT if request.input else ALPACA
        asked = f"{request.system}\n{request.instruction}" if request.system else request.instruction
        return text.format(instruction=asked, input=request.input)
    if template == "plain":
        return "\n".join(part for part in (request.system, question) if part) + "\n"
    if template == "llama2":  # transformers up to 4.43 gave this to base Llama 2; its system message was lost there
        return f"[INST] {question} [/INST]"
    return _chat(tokenizer, _messages(request, question), add_generation_prompt=True)


def encode(template: Template, request: Request, answer: str, answer_end: str, tokenizer: Any) -> Encoded:
    """Return the tokens of prompt and answer.

    They are tokenised together, as text, and the answer begins where that departs from the prompt alone. The end is
    `answer_end`, as text, then the tokenizer's end-of-text token, at which generation stops. What a chat template puts
    behind that token (ChatML: a line break) is left out.
    """
    prompt = prompt_text(template, request, tokenizer)
    if template == "chat":
        asked = _messages(request, f"{request.instruction}\n{request.input}" if request.input else request.instruction)
        whole = _chat(tokenizer, [*asked, {"role": "assistant", "content": answer + answer_end}])
        ids, prompt_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (whole, prompt))
        shared = common_prefix(ids, prompt_ids)
        return Encoded(ids[:shared], _to_end(ids[shared:], tokenizer.eos_token_id))
    texts = (prompt + answer + answer_end, prompt)
    ids, prompt_ids = (_without_end(tokenizer(text)["input_ids"], tokenizer) for text in texts)
    ids = [*ids, tokenizer.eos_token_id]
    shared = common_prefix(ids, prompt_ids)
    return Encoded(ids[:shared], ids[shared:])


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many items two sequences share at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _to_end(answer: list[int], end: int) -> list[int]:
    """Return an answer up to its last end-of-text token, which a template that has none is given."""
    return answer[: len(answer) - answer[::-1].index(end)] if end in answer else [*answer, end]


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Some tokenizers add the end-of-text token themselves."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _messages(request: Request, question: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    return [*system, {"role": "user", "content": question}]


def _chat(tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise ValueError("task.template=chat: this model's tokenizer has no chat template; try task.template=alpaca")
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
