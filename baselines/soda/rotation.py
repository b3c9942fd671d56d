"""A rotation of features that is a Kronecker product of small orthogonal matrices, and Adam on their manifold.

Released SODA optimises the matrices with StiefelAdam (Kong, Wang, Tao 2023, arXiv:2205.14173). `cayley` and `expm` make
them from unconstrained numbers instead, so that any optimizer keeps them orthogonal: ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from baselines.soda.factors import rotation_entries

ROTATIONS = ("cayley", "expm", "stiefel")


def rotate(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Return x @ (matrices[0] (x) matrices[1] (x) ...) for x (..., product of sizes), without the large matrix."""
    turned = x.reshape(-1, *(len(matrix) for matrix in matrices))
    for axis, matrix in enumerate(matrices, start=1):
        turned = (turned.movedim(axis, -1) @ matrix.to(x.dtype)).movedim(-1, axis)
    return turned.reshape(x.shape)


def skew_matrix(entries: Tensor, size: int) -> Tensor:
    """Return the skew-symmetric (size, size) matrix whose strict lower triangle is `entries`, row by row."""
    rows, columns = torch.tril_indices(size, size, offset=-1, device=entries.device)
    lower = entries.new_zeros(size, size).index_put((rows, columns), entries)
    return lower - lower.T


def cayley(skew: Tensor) -> Tensor:
    """Return (I + A)^-1 (I - A), orthogonal for a skew-symmetric A, the identity for zero."""
    identity = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(identity + skew, identity - skew)


class Rotation(nn.Module):
    """An orthogonal matrix R, the Kronecker product of matrices of the given sizes; starts as the identity."""

    def __init__(self, sizes: Sequence[int], kind: str) -> None:
        super().__init__()
        self.sizes, self.kind = tuple(sizes), kind
        starts = [torch.eye(size) if kind == "stiefel" else torch.zeros(rotation_entries(size, kind)) for size in sizes]
        self.entries = nn.ParameterList(nn.Parameter(start) for start in starts)

    def matrices(self) -> list[Tensor]:
        """Return the small orthogonal matrices, those made from other numbers in float32 at least."""
        if self.kind == "stiefel":
            return list(self.entries)
        wide = [entries.to(torch.promote_types(entries.dtype, torch.float32)) for entries in self.entries]
        skew = [skew_matrix(entries, size) for entries, size in zip(wide, self.sizes, strict=True)]
        return [cayley(matrix) if self.kind == "cayley" else torch.matrix_exp(matrix) for matrix in skew]

    def forward(self, x: Tensor) -> Tensor:
        """Return x R for rows x (..., inputs)."""
        return rotate(x, self.matrices())

    def back(self, x: Tensor) -> Tensor:
        """Return x R^T."""
        return rotate(x, [matrix.T for matrix in self.matrices()])


class StiefelAdam(TrainerCallback):
    """Steps all rotations of kind `stiefel` on the manifold and hides their gradients from the optimizer.

    Released settings: betas 0.9 and 0.99, epsilon 1e-5 (the release passes another value under a name that the
    optimizer ignores), forward Euler and a projection. The rate is the optimizer's, with its schedule.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.states: dict[nn.Parameter, tuple[Tensor, Tensor, int]] = {}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step after gradients are clipped and before the optimizer sees them."""
        rates = {id(weight): group["lr"] for group in kwargs["optimizer"].param_groups for weight in group["params"]}
        for module in kwargs["model"].modules():
            for weight in module.entries if isinstance(module, Rotation) and module.kind == "stiefel" else ():
                if weight.grad is not None:
                    self.step(weight, rates[id(weight)])
                    weight.grad = None

    @torch.no_grad()
    def step(
        self, weight: nn.Parameter, rate: float, betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-5
    ) -> None:
        """Replace an orthogonal square weight by the next one, from its gradient (canonical metric)."""
        gradient = weight.T @ cast(Tensor, weight.grad)
        gradient = gradient - gradient.T  # skew, so the steps below stay skew: the divisor is symmetric
        zeros = torch.zeros_like(gradient)
        momentum, square, steps = self.states.get(weight, (zeros, zeros, 0))
        momentum = betas[0] * momentum - (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        steps += 1
        self.states[weight] = momentum, square, steps
        scale = (square / (1 - betas[1] ** steps)).sqrt() + epsilon
        moved = weight + weight @ (rate / (1 - betas[0] ** steps) * momentum / scale)
        left, _, right = torch.linalg.svd(moved)  # X (X^T X)^-1/2, which the release iterates for
        weight.copy_(left @ right)

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        """Return the moments and the number of steps of every rotation, for a checkpoint."""
        paths = {weight: path for path, weight in model.named_parameters()}
        return {paths[weight]: state for weight, state in self.states.items()}

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Go on from a checkpoint."""
        weights = dict(model.named_parameters())
        self.states = {
            weights[path]: (momentum.to(weights[path]), square.to(weights[path]), steps)
            for path, (momentum, square, steps) in state.items()
        }
