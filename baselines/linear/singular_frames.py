"""The largest singular values of a frozen weight and their vectors: LoRA-XS trains between them, PiSSA starts there."""

import torch
from torch import Tensor

OVERSAMPLING = 10  # directions that the random sketch has more than are wanted; Halko et al. 2011, arXiv:0909.4061
POWER_ITERATIONS = 10  # of the released LoRA-XS code, as its seed
SEED = 42


def singular_frames(
    weight: Tensor, rank: int, power_iterations: int = POWER_ITERATIONS
) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (outputs, rank), the singular values (rank), falling, and right (rank, inputs) of a weight.

    In float32 at least. By a randomised decomposition with a seed of its own, exact where the sketch is as large as the
    weight; it leaves torch's random numbers alone. Two machines agree on the subspaces but not on the vectors' signs,
    so what is trained in these frames has to be saved with them. Raises ValueError for a rank above both sides.
    """
    smaller = min(weight.shape)
    if rank > smaller:
        raise ValueError(f"rank {rank} must be at most {smaller}, the number of singular values: choose a lower rank.")
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    sketch = rank + OVERSAMPLING
    if sketch >= smaller or weight.is_meta:
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
            torch.manual_seed(SEED)
            left, values, right = torch.svd_lowrank(wide, q=sketch, niter=power_iterations)
            right = right.T
    return left[:, :rank].contiguous(), values[:rank].contiguous(), right[:rank].contiguous()
