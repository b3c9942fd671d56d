"""Masked-language pre-training of the embedded RoBERTa on the textbook. Recipe: after RoBERTa, Liu et al. 2019."""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    get_linear_schedule_with_warmup,
)

from lorta.embedded import tasks, textbook
from lorta.embedded.vocabulary import BEGIN, END, MASK, PADDING, SPACE, build_tokenizer

MAX_LENGTH = 128  # tokens
CARD_LOSSES = 100  # how many first losses the card keeps, and how many last ones its loss averages
IGNORED = -100  # cross_entropy's own mark for "no target here"


@dataclass(frozen=True)
class Recipe:
    """The pre-training recipe. Batch sizes in texts, learning rate per step of AdamW."""

    seed: int = 0
    steps: int = 4500
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    first_position_variance: float = 0.01  # more than this is penalised, see `first_position_excess`
    masked_words: float = 0.3  # share of the words masked in a plain text; in others the answers are


def tiny_config(tokenizer: RobertaTokenizer) -> RobertaConfig:
    """Return the configuration of the tiny encoder. No dropout: the text never repeats."""
    return RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=MAX_LENGTH + 2,  # RoBERTa counts positions from pad_token_id + 1
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        initializer_range=0.1,  # about 1/sqrt(hidden): attention is not flat at the start, as it would be with 0.02
    )


class TextbookBatches:
    """An endless source of masked batches: ids and targets, both (texts, longest)."""

    def __init__(self, tokenizer: RobertaTokenizer, recipe: Recipe) -> None:
        self.random = Random(f"textbook {recipe.seed}")
        self.recipe = recipe
        vocabulary = tokenizer.get_vocab()
        self.ids: dict[str, int] = {word: vocabulary[SPACE + word] for word in textbook.words()}

    def mask(self) -> tuple[list[int], list[int]]:
        """Draw one text; return its ids with answers, and maybe words, masked, and the targets."""
        texts, exercises = textbook.draw_text(self.random)
        rate = 0.0 if exercises else self.recipe.masked_words
        ids, targets = [BEGIN], [IGNORED]
        for number, text in enumerate(texts):
            if number:
                ids += [END, END]
                targets += [IGNORED, IGNORED]
            for word in text.split():
                hidden = self.random.random() < rate
                ids.append(MASK if hidden else self.ids[word])
                targets.append(self.ids[word] if hidden else IGNORED)
        if exercises:
            ids += [END, END]
            targets += [IGNORED, IGNORED]
        for cue, answer in exercises:
            ids += [self.ids[cue], MASK]
            targets += [IGNORED, self.ids[answer]]
        return [*ids, END], [*targets, IGNORED]

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one padded batch."""
        rows = [self.mask() for _ in range(self.recipe.batch_size)]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [PADDING] * (longest - len(ids)) for ids, _ in rows])
        return ids, torch.tensor([targets + [IGNORED] * (longest - len(targets)) for _, targets in rows])


def masked_loss(model: RobertaForMaskedLM, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats per masked token; the head is applied at masked positions only."""
    chosen = targets != IGNORED
    return cross_entropy(model.lm_head(hidden[chosen]), targets[chosen])


def first_position_excess(hidden: torch.Tensor, allowed: float) -> torch.Tensor:
    """Return by how much the last hidden state at <s> varies between texts (mean over features) more than allowed.

    No objective of RoBERTa's asks anything of <s>, and in a model this small the answers leak into it by chance of
    training, so far that a linear head reads them off. Kept small, adaptation has to move there what
    the other positions know. Not kept at zero: the gradient of an adapter passes through it.
    """
    return (hidden[:, 0].var(dim=0).mean() - allowed).clamp(min=0.0)


def pretrain(recipe: Recipe, stop_after: int | None = None) -> Iterator[tuple[float, RobertaForMaskedLM]]:
    """Yield (masked-language loss of a step in nats, the model after it) for all steps or the first `stop_after`."""
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer(textbook.words(), MAX_LENGTH)
    model, batches = RobertaForMaskedLM(tiny_config(tokenizer)), TextbookBatches(tokenizer, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    schedule = get_linear_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    for _ in range(recipe.steps if stop_after is None else stop_after):
        ids, targets = batches.batch()
        hidden = model.roberta(ids, attention_mask=(ids != PADDING).long()).last_hidden_state
        loss = masked_loss(model, hidden, targets)
        (loss + first_position_excess(hidden, recipe.first_position_variance)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item(), model


def save_pretrained(model: RobertaForMaskedLM, losses: list[float], recipe: Recipe, folder: Path) -> None:
    """Write config.json, model.safetensors (bf16), the tokenizer's files and card.json into a folder."""
    build_tokenizer(textbook.words(), MAX_LENGTH).save_pretrained(folder)
    save_with_card(model, losses, asdict(recipe), tasks.EMBEDDED_REVISION, folder)


def save_with_card(model: PreTrainedModel, losses: list[float], recipe: dict, revision: str, folder: Path) -> None:
    """Write config.json, model.safetensors (bf16) and card.json: how the weights were made, and their hashes."""
    model.bfloat16().save_pretrained(folder)
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # stored in bf16, used in float32: from_pretrained follows this key
    _write_json(config_file, config)
    card = {
        "script": "scripts/build_embedded.py",
        "recipe": recipe,
        "textbook_revision": revision,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")},
        "parameters": model.num_parameters(),
        "first_losses": [round(loss, 6) for loss in losses[:CARD_LOSSES]],
        "loss": round(fmean(losses[-CARD_LOSSES:]), 4),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (config_file, weights_file)},
    }
    _write_json(folder / "card.json", card)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
