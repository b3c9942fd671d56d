"""A tokenizer of 48 words, made without a hub: w0 ... w44, padding, end and unknown."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; its size is the vocabulary of the tiny backbones."""
    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(45))]
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=32
    )
