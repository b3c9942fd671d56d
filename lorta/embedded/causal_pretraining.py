"""Next-token pre-training of the embedded Llama on the primer. Optimiser after Llama 2, Touvron et al. 2023, 2.2."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from lorta.embedded import primer
from lorta.embedded.instructions import INSTRUCT_REVISION
from lorta.embedded.pretraining import save_with_card
from lorta.embedded.vocabulary import build_causal_tokenizer

MAX_LENGTH = 2048  # tokens; rotary positions cost no weights. Pre-training sees fewer than 200


@dataclass(frozen=True)
class CausalRecipe:
    """The pre-training recipe. Batch sizes in rows of `row_length` tokens, learning rate per step of AdamW."""

    seed: int = 0
    steps: int = 5000
    batch_size: int = 8
    row_length: int = 128
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01


def tiny_llama_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the configuration: grouped-query attention, input and output embeddings tied."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.1,  # about 1/sqrt(hidden): attention is not flat at the start, as it would be with 0.02
        bos_token_id=0,  # the places in CAUSAL_SPECIALS
        eos_token_id=1,
        pad_token_id=2,
    )


def primer_tokens(random: Random, tokenizer: PreTrainedTokenizerFast) -> Iterator[int]:
    """Yield the tokens of endless documents, each between <s> and </s>; rows are cut from it wherever they end."""
    while True:
        yield from tokenizer(primer.draw_document(random) + str(tokenizer.eos_token))["input_ids"]


def pretrain_causal(recipe: CausalRecipe, stop_after: int | None = None) -> Iterator[tuple[float, LlamaForCausalLM]]:
    """Yield (next-token loss of a step in nats, the model after it) for all steps or the first `stop_after`."""
    torch.manual_seed(recipe.seed)
    tokenizer = build_causal_tokenizer(primer.words(), MAX_LENGTH)
    tokens = primer_tokens(Random(f"primer {recipe.seed}"), tokenizer)
    model = LlamaForCausalLM(tiny_llama_config(tokenizer))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    for _ in range(recipe.steps if stop_after is None else stop_after):
        ids = torch.tensor(list(islice(tokens, recipe.batch_size * recipe.row_length)))
        ids = ids.view(recipe.batch_size, recipe.row_length)
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item(), model


def save_causal(model: LlamaForCausalLM, losses: list[float], recipe: CausalRecipe, folder: Path) -> None:
    """Write config.json, model.safetensors (bf16), the tokenizer's files and card.json into a folder."""
    build_causal_tokenizer(primer.words(), MAX_LENGTH).save_pretrained(folder)
    save_with_card(model, losses, asdict(recipe), INSTRUCT_REVISION, folder)
