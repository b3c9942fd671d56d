"""The tokenizer of the embedded language: a real byte-level BPE (GPT-2's, as RoBERTa uses it) with hand-made merges.

Merges build each word from its left end, so every word of the language is one token; any other text falls back to the
256 bytes, so nothing is ever unknown.
"""

from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import RobertaTokenizer

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # RoBERTa's first four in RoBERTa's order, then the mask
BEGIN, PADDING, END, MASK = (SPECIALS.index(token) for token in ("<s>", "<pad>", "</s>", "<mask>"))
SPACE = "\u0120"  # how the byte-level alphabet writes a space


def build_tokenizer(words: Iterable[str], max_length: int) -> RobertaTokenizer:
    """Return a RoBERTa tokenizer that knows the words (lower-case ASCII, preceded by a space) as whole tokens."""
    vocabulary = {token: number for number, token in enumerate((*SPECIALS, *sorted(ByteLevel.alphabet())))}
    merges: list[tuple[str, str]] = []
    for word in words:
        left = SPACE
        for letter in word:
            if left + letter not in vocabulary:
                merges.append((left, letter))
                vocabulary[left + letter] = len(vocabulary)
            left += letter
    return RobertaTokenizer(  # it takes pairs, whatever its annotation says
        vocab=vocabulary,
        merges=merges,  # pyright: ignore[reportArgumentType]
        add_prefix_space=True,
        model_max_length=max_length,
    )
