"""The first factors of LoRA-GA, CorDA, EVA and PiSSA, from gradients, inputs or the weight.

Each returns down (r, inputs) and up (outputs, r); with the scaling s the method starts at the update s up down.
"""

import torch
from torch import Tensor

from baselines.linear.singular_frames import singular_frames

DAMPING = 0.01  # of CorDA's covariance, doubled until it can be inverted; PEFT 0.21.2, `peft/tuners/lora/corda.py`
LARGEST_ERROR = 0.05  # of the inverse


def lora_ga(gradient: Tensor, r: int, gamma: float) -> tuple[Tensor, Tensor]:
    """Return the start along the gradient (outputs, inputs) of the frozen weight.

    down is its first r right singular vectors, up its next r left ones with their singular values, times
    outputs^(1/4) / sqrt(gamma): direction ArB2r and scale stable. Wang et al. 2024, arXiv:2407.05000; PEFT 0.21.2.
    Raises ValueError for a rank above half of the smaller side.
    """
    if 2 * r > min(gradient.shape):
        raise ValueError(f"LoRA-GA's rank {r} must be at most {min(gradient.shape) // 2}, half of the smaller side.")
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    scale = gradient.shape[0] ** 0.25 / gamma**0.5
    return right[:r], left[:, r : 2 * r] * values[r : 2 * r] * scale


def corda(weight: Tensor, moment: Tensor, r: int, scaling: float, largest: bool) -> tuple[Tensor, Tensor]:
    """Return the factors of the part of the weight (outputs, inputs) that matters most, or least, for its inputs.

    `moment` (inputs, inputs) is the mean of x x^T. The singular triples of W C give W = U S (V^T C^-1); r of them are
    taken, the largest ("instruction-previewed") or the smallest ("knowledge-preserved"), and divided by the scaling.
    Yang et al. 2024, arXiv:2406.05223.
    """
    damping, identity = DAMPING, torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    while True:
        damped = moment + damping * moment.diagonal().mean() * identity
        inverse = torch.linalg.inv(damped)
        if torch.dist(damped @ inverse, identity) < LARGEST_ERROR:
            break
        damping *= 2
    left, values, right = torch.linalg.svd(weight @ damped, full_matrices=False)
    chosen = slice(0, r) if largest else slice(len(values) - r, len(values))
    roots = (values[chosen] / scaling).sqrt()
    return roots[:, None] * (right[chosen] @ inverse), left[:, chosen] * roots


def eva(moment: Tensor, mean: Tensor, outputs: int, r: int) -> tuple[Tensor, Tensor]:
    """Return the r directions in which the inputs vary most, and a second factor of 0: the update starts at 0.

    `moment` (inputs, inputs) is the mean of x x^T, `mean` (inputs) that of x. Paischer et al. 2024, arXiv:2410.07170,
    without its redistribution of ranks; the paper finds the directions by incremental decompositions.
    """
    _, vectors = torch.linalg.eigh(moment - torch.outer(mean, mean))  # rising eigenvalues
    return vectors[:, -r:].flip(1).T, moment.new_zeros(outputs, r)


def pissa(weight: Tensor, r: int, scaling: float, power_iterations: int) -> tuple[Tensor, Tensor]:
    """Return the factors of the weight's r largest singular triples, divided by the scaling.

    By a randomised decomposition, the faster the fewer its power iterations. Meng et al. 2024, arXiv:2404.02948.
    """
    left, values, right = singular_frames(weight, r, power_iterations)
    roots = (values / scaling).sqrt()
    return roots[:, None] * right, left * roots
