"""BOFT's butterfly without PEFT's CUDA extension.

Where PEFT 0.21.2 cannot build its extension it warns and trains with one butterfly factor, which is plain OFT: fewer
weights and another method than asked for. The extension only lays blocks on a diagonal, so torch does the same here, on
every device and with every number of factors. Source: Liu et al. 2024, arXiv:2311.06243; `peft/tuners/boft/layer.py`.
"""

from collections.abc import Mapping
from typing import Any

from peft.tuners.boft import layer
from torch import Tensor


class BlockDiagonal:
    """What PEFT calls for a block-diagonal matrix and its gradient, in plain torch."""

    @staticmethod
    def forward(blocks: Tensor) -> list[Tensor]:
        """Return [the matrices (factors, blocks * size, blocks * size)] of blocks (factors, blocks, size, size)."""
        factors, count, size, _ = blocks.shape
        matrices = blocks.new_zeros(factors, count, size, count, size)
        matrices.diagonal(dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
        return [matrices.view(factors, count * size, count * size)]

    @staticmethod
    def backward(gradient: Tensor, blocks: Tensor) -> list[Tensor]:
        """Return [the blocks' gradient]: the diagonal blocks of the matrices' gradient."""
        factors, count, size, _ = blocks.shape
        tiles = gradient.view(factors, count, size, count, size)
        return [tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).contiguous()]


def use_plain_torch(backbone: Any, config: Mapping[str, Any]) -> None:
    """Make PEFT take `BlockDiagonal` for its extension, before it wraps a model."""
    layer._FBD_CUDA = BlockDiagonal  # pyright: ignore[reportPrivateUsage] the place where PEFT keeps a built extension
