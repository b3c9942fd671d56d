"""Training and folding of chains: transformers.Trainer with the folding loss, and predictions chain by chain."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.models.esm.openfold_utils.data_transforms import make_atom14_masks
from transformers.models.esm.openfold_utils.feats import atom14_to_atom37

from experiments.folding.batches import TrainingBatches, collate
from experiments.folding.frames import CA
from experiments.folding.losses import loss_terms, total_loss
from experiments.folding.settings import LossWeights
from experiments.folding.target import Target
from lorta.training.context import TrainingContext
from lorta.training.trainer import OwnDataOrder, TrainingOutcome, train_model

MODEL_INPUTS = ("input_ids", "attention_mask", "num_recycles")


class FoldingTrainer(OwnDataOrder):
    """A Trainer whose loss is the weighted sum of `losses`."""

    sort_steps = False  # what a chain is cropped to is drawn by its place in the step

    def __init__(self, *arguments: Any, weights: LossWeights, clamped_share: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.weights, self.clamped_share = weights, clamped_share

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Return the batches of an optimiser step, all with the recycles that were drawn for it."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        recycles = {"num_recycles": batches[-1]["num_recycles"]}
        return [batch | recycles for batch in batches], items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch of `TrainingBatches`, with the model's outputs if they are asked for."""
        outputs = model(**{name: inputs[name] for name in MODEL_INPUTS})
        terms = loss_terms(outputs, inputs, self.clamped_share)
        loss = total_loss(terms, self.weights, inputs["attention_mask"].sum(dim=1))
        return (loss, outputs) if return_outputs else loss


def train_folding(
    model: nn.Module,
    context: TrainingContext,
    batches: TrainingBatches,
    weights: LossWeights,
    clamped_share: float,
    score: Callable[[], float],
) -> TrainingOutcome:
    """Train what requires a gradient on crops of `rows`."""

    def make_trainer(arguments: dict[str, Any], parts: dict[str, Any]) -> Trainer:
        train: Any = context.data.train
        loss = {"weights": weights, "clamped_share": clamped_share}
        return FoldingTrainer(args=TrainingArguments(**arguments), train_dataset=train, **loss, **parts)

    return train_model(model, context, make_trainer, cast(Any, batches), score)


class Folded:
    """One chain as a model folds it.

    positions: (L, 37, 3) float32, angstrom; mask: (L, 37), the atoms that its residues have; confidence: the predicted
    lDDT-Ca of each residue, (L,), 0 to 100; losses: the terms of `losses`.
    """

    def __init__(self, outputs: dict[str, torch.Tensor], losses: dict[str, float], length: int) -> None:
        self.positions = atom14_to_atom37(outputs["positions"], outputs)[:length].cpu().numpy()
        self.mask = outputs["atom37_atom_exists"][:length].bool().cpu().numpy()
        self.confidence = 100 * outputs["plddt"][:length, CA].cpu().numpy().astype(np.float64)
        self.losses = losses


@torch.no_grad()
def fold(
    model: nn.Module, targets: Sequence[Target], batch_size: int, recycles: int, clamped_share: float
) -> list[Folded]:
    """Return the fold of every chain, whole, in their order; batches are made of chains of like length."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(targets)), key=lambda index: len(targets[index].sequence))
    folded: dict[int, Folded] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = {name: tensor.to(device) for name, tensor in collate([targets[index] for index in chosen]).items()}
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], num_recycles=recycles)
        terms = loss_terms(outputs, batch, clamped_share)
        parts = make_atom14_masks({"aatype": batch["input_ids"]})
        parts |= {"positions": outputs.positions[-1].float(), "plddt": outputs.plddt.float()}
        for row, index in enumerate(chosen):
            losses = {name: float(term[row]) for name, term in terms.items()}
            part = {name: tensor[row] for name, tensor in parts.items()}
            folded[index] = Folded(part, losses, len(targets[index].sequence))
    model.train(was_training)
    return [folded[index] for index in range(len(targets))]
