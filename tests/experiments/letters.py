"""A tokenizer of letters, made without a hub, and a small Llama of random weights that reads them."""

import string

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<eos>", "<unk>")
LETTERS = (*string.ascii_letters, *string.digits, *string.punctuation, "\u0120", "\u010a")  # byte-level space, newline


def letter_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """Return the tokenizer; padding is 0, the end of a text 1. With `bos`, <unk> also stands before every text."""
    vocabulary = {token: number for number, token in enumerate((*SPECIALS, *LETTERS))}
    core = Tokenizer(BPE(vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if bos:
        core.post_processor = TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", 2)])
    marks = {"bos_token": "<unk>"} if bos else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", **marks
    )


def small_llama(**changes) -> LlamaForCausalLM:
    """Two layers of random weights, always the same, large enough that answers differ from prompt to prompt."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(SPECIALS) + len(LETTERS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()
