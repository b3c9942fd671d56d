"""The tokenizer of the embedded language: a real byte-level BPE (GPT-2's, as RoBERTa uses it) with hand-made merges.

Merges build each word from its left end, so every word of the language is one token; any other text falls back to the
256 bytes, so nothing is ever unknown.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, RobertaTokenizer

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # RoBERTa's first four in RoBERTa's order, then the mask
BEGIN, PADDING, END, MASK = (SPECIALS.index(token) for token in ("<s>", "<pad>", "</s>", "<mask>"))
CAUSAL_SPECIALS = ("<s>", "</s>", "<pad>")
CHAT_TEMPLATE = (  # our own: the roles as headings, an end mark after the assistant's words
    "{{ bos_token }}{% for message in messages %}### {{ message.role | capitalize }}:\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
SPACE = "\u0120"  # how the byte-level alphabet writes a space


def build_tokenizer(words: Iterable[str], max_length: int) -> RobertaTokenizer:
    """Return a RoBERTa tokenizer that knows the words (lower-case ASCII, preceded by a space) as whole tokens."""
    vocabulary, merges = _byte_pairs(SPECIALS, words, (SPACE,))
    return RobertaTokenizer(  # it takes pairs, whatever its annotation says
        vocab=vocabulary,
        merges=merges,  # pyright: ignore[reportArgumentType]
        add_prefix_space=True,
        model_max_length=max_length,
    )


def build_causal_tokenizer(words: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """Return a decoder's tokenizer (Llama 3's kind): words are whole tokens after a space and at the start of a line.

    A text begins with <s>; the model's answers end with </s>.
    """
    vocabulary, merges = _byte_pairs(CAUSAL_SPECIALS, words, (SPACE, ""))
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))  # a known word is one token
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = ByteLevelDecoder()  # pyright: ignore[reportAttributeAccessIssue]
    begin, end, padding = CAUSAL_SPECIALS
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=padding,
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE,
    )


def _byte_pairs(
    specials: tuple[str, ...], words: Iterable[str], starts: tuple[str, ...]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges that build each word from its left end, after each of `starts`."""
    vocabulary = {token: number for number, token in enumerate((*specials, *sorted(ByteLevel.alphabet())))}
    merges: list[tuple[str, str]] = []
    for word in words:
        for start in starts:
            left = start
            for letter in word:
                if left and left + letter not in vocabulary:
                    merges.append((left, letter))
                    vocabulary[left + letter] = len(vocabulary)
                left += letter
    return vocabulary, merges
