"""The projection of Dynamic Subset Tuning: from any weights to the nearest ones that differ little from the seed."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

RELATIVE_FLOOR = 1e-3  # what a relative distance adds to |seed|, so that zeros do not win by themselves


class MovingSubset:
    """A model's seed weights, head excluded, their silos, and the subset that differs."""

    def __init__(self, model: nn.Module, heads: Sequence[str], fraction: float, silos: str, distance: str) -> None:
        present = {path for path, _ in model.named_modules()}
        self.heads = tuple(head for head in heads if head in present)
        inside = tuple(f"{head}." for head in self.heads)
        self.fraction = Fraction(str(fraction))  # 0.29 of 100 is 29; the float's product is below
        self.distance = distance
        self.seed = {
            path: weight.detach().clone() for path, weight in model.named_parameters() if not path.startswith(inside)
        }
        self.silos: dict[str, list[str]] = {}
        for path in self.seed:
            self.silos.setdefault(_silo(path, silos), []).append(path)
        self.members: dict[str, Tensor] = {}  # silo -> positions in the subset after the last step
        self.entered = 0  # positions that came into the subset since this was last set to zero

    def allowed(self, silo: str) -> int:
        """Return how many weights of a silo may differ from the seed: the fraction of its size, rounded down."""
        return int(self.fraction * sum(self.seed[path].numel() for path in self.silos[silo]))

    def changed(self, model: nn.Module) -> int:
        """Return how many weights differ from the seed."""
        weights = dict(model.named_parameters())
        return sum(int((weights[path] != seed.to(weights[path].device)).sum()) for path, seed in self.seed.items())

    @torch.no_grad()
    def project(self, model: nn.Module) -> dict[str, Tensor]:
        """Put all weights but the furthest of each silo back to the seed; return path -> mask of what was kept."""
        weights = dict(model.named_parameters())
        masks: dict[str, Tensor] = {}
        for silo, paths in self.silos.items():
            for path in paths:
                self.seed[path] = self.seed[path].to(weights[path].device)
            far = torch.cat([self._distance(weights[path], self.seed[path]).flatten() for path in paths])
            kept = furthest(far, self.allowed(silo))
            self._count_entered(silo, kept & (far > 0))
            for path, part in zip(paths, kept.split([weights[path].numel() for path in paths]), strict=True):
                masks[path] = part.view_as(weights[path])
                weights[path].copy_(torch.where(masks[path], weights[path], self.seed[path]))
        return masks

    def _distance(self, weight: Tensor, seed: Tensor) -> Tensor:
        moved = (weight - seed).abs()
        return moved / (seed.abs() + RELATIVE_FLOOR) if self.distance == "relative" else moved

    def _count_entered(self, silo: str, members: Tensor) -> None:
        before = torch.zeros_like(members)
        if silo in self.members:
            before[self.members[silo].to(members.device)] = True
        self.entered += int((members & ~before).sum())
        self.members[silo] = members.nonzero().flatten()


def _silo(path: str, silos: str) -> str:
    """Return the name of a weight's silo. Layers are told apart by the first number in the path."""
    if silos == "global":
        return ""
    if silos == "layer":
        return next((part for part in path.split(".") if part.isdigit()), "outside")
    return path if silos == "tensor" else path.rpartition(".")[0]


def furthest(distances: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest of a vector; of equal ones, the first."""
    if count == 0:
        return torch.zeros_like(distances, dtype=torch.bool)
    least = distances.kthvalue(distances.numel() - count + 1).values  # topk promises no order among equals
    kept = distances > least
    kept[(distances == least).nonzero().flatten()[: count - int(kept.sum())]] = True
    return kept


class Projection(TrainerCallback):
    """Projects after every optimizer step, and writes the subset's change into the training history."""

    def __init__(self, clear_moments: bool) -> None:
        self.clear_moments = clear_moments

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put back what moved least; forget its moments if asked to."""
        model = kwargs["model"]
        masks = model.moving_subset.project(model)
        if not self.clear_moments:
            return
        for path, weight in model.named_parameters():
            if path in masks:
                for value in kwargs["optimizer"].state[weight].values():
                    if torch.is_tensor(value) and value.shape == weight.shape:
                        value.mul_(masks[path])

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write `subset_entered`: how many positions came into the subset since the last entry of the history."""
        subset = kwargs["model"].moving_subset
        state.log_history[-1]["subset_entered"] = subset.entered
        subset.entered = 0

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return who is in the subset, for a checkpoint."""
        return {"members": dict(model.moving_subset.members), "entered": model.moving_subset.entered}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""
        model.moving_subset.members, model.moving_subset.entered = dict(state["members"]), state["entered"]
