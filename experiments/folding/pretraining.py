"""Pre-training of the embedded ESMFold on toy folds: language model and trunk together, on the folding loss.

Sizes and recipe are our own; the real ones are in Lin et al. 2023, Science 379:1123, supplement A.1 and A.3.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from transformers import EsmConfig, EsmForProteinFolding, EsmTokenizer, get_cosine_schedule_with_warmup
from transformers.models.esm.configuration_esm import get_default_vocab_list
from transformers.models.esm.openfold_utils import residue_constants as constants

from experiments.folding.batches import TrainingBatches
from experiments.folding.losses import loss_terms, total_loss
from experiments.folding.model import TrainableFold
from experiments.folding.settings import LossWeights
from experiments.folding.target import Target
from lorta.embedded.folds import FOLDS_REVISION, fold_rows
from lorta.embedded.pretraining import save_with_card

OWN_TOKENS = ("<pad>", "<mask>", "<cls>", "<sep>", "<eos>")  # after the residues, in ESMFold's published vocabulary


WEIGHTS = LossWeights(backbone_fape=0.5, torsion=0.5, angle_norm=0.01, distogram=0.3, plddt=0.01)  # conf/task/folding


STRUCTURE_MODULE = {
    "sequence_dim": 64,
    "pairwise_dim": 32,
    "ipa_dim": 8,
    "resnet_dim": 32,
    "num_heads_ipa": 4,
    "num_qk_points": 4,
    "num_v_points": 4,
    "num_blocks": 4,
    "num_resnet_blocks": 1,
    "dropout_rate": 0.0,
}
TRUNK = {
    "num_blocks": 1,
    "sequence_state_dim": 64,
    "pairwise_state_dim": 32,
    "sequence_head_width": 16,
    "pairwise_head_width": 16,
    "max_recycles": 2,
    "chunk_size": None,
    "structure_module": STRUCTURE_MODULE,
}


@dataclass(frozen=True)
class Recipe:
    """The pre-training recipe. Batch sizes in chains, learning rate per step of AdamW, losses as in conf/task."""

    seed: int = 0
    steps: int = 1200
    batch_size: int = 8
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    recycles: int = 1
    clamped_share: float = 0.9
    weights: LossWeights = WEIGHTS


def tiny_config() -> EsmConfig:
    """Return the configuration of the embedded ESMFold: ESM-2's design, a trunk of pairs, no dropout."""
    vocabulary = get_default_vocab_list()
    return EsmConfig(
        vocab_size=len(vocabulary),
        vocab_list=vocabulary,
        pad_token_id=vocabulary.index("<pad>"),
        mask_token_id=vocabulary.index("<mask>"),
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
        initializer_range=0.1,  # about 1/sqrt(hidden), where ESM-2 has 0.02 for far wider layers
        is_folding_model=True,
        esmfold_config={"fp16_esm": False, "embed_aa": False, "lddt_head_hid_dim": 32, "trunk": TRUNK},
    )


def pretrain(recipe: Recipe, stop_after: int | None = None) -> Iterator[tuple[float, TrainableFold]]:
    """Yield (loss of a step, the model after it) for all steps or the first `stop_after`."""
    torch.manual_seed(recipe.seed)
    model, random = TrainableFold(tiny_config()).requires_grad_(True).train(), Random(f"folds {recipe.seed}")
    targets = [Target(*row) for row in fold_rows("pretraining")]
    longest = max(len(target.sequence) for target in targets)
    collate = TrainingBatches(longest, recipe.recycles, sampled=True, seed=recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    for _ in range(recipe.steps if stop_after is None else stop_after):
        batch = collate(random.sample(targets, recipe.batch_size))
        outputs = model(batch["input_ids"], batch["attention_mask"], num_recycles=batch["num_recycles"])
        terms = loss_terms(outputs, batch, recipe.clamped_share)
        loss = total_loss(terms, recipe.weights, batch["attention_mask"].sum(dim=1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item(), model


def build_tokenizer(folder: Path) -> EsmTokenizer:
    """Write vocab.txt into a folder and return its tokenizer: AlphaFold's residue numbers, as ESMFold's own has them.

    ESMFold's pads with 0, which is alanine; ours with its own token. Nothing pads with either: batches are masked.
    """
    file = folder / "vocab.txt"
    file.write_text("\n".join([*constants.restypes_with_x, *OWN_TOKENS]) + "\n", encoding="utf-8")
    return EsmTokenizer(vocab_file=str(file), unk_token="X")


def save_pretrained(model: TrainableFold, losses: list[float], recipe: Recipe, folder: Path) -> None:
    """Write config.json, model.safetensors (bf16), the tokenizer's files and card.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder).save_pretrained(folder)
    cast(
        Any, model
    ).__class__ = EsmForProteinFolding  # the name in config.json: the weights are those of the published class
    save_with_card(model, losses, asdict(recipe), FOLDS_REVISION, folder)
