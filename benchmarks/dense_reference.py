"""The released LoRTA's algorithm, as a baseline for timing: every step builds the dense update of every projection.

Written from its description (docs of the tuner, arXiv:2410.04060), head by head as the release does it; grouped keys
and values, which the release lacks, take the first heads.
"""

import torch
from torch import Tensor, nn


class DenseReference(nn.Module):
    """A frozen model whose projections get x @ dW, with all dW built before each forward pass."""

    def __init__(self, model: nn.Module, projections: dict[str, tuple[int, int]], sizes: dict[str, int], r: int):
        """`projections`: module path -> (layer, matrix); sizes: hidden, head_dim, heads, layers, matrices."""
        super().__init__()
        self.model = model.requires_grad_(False)
        self.projections, self.heads = projections, sizes["heads"]
        self.factors = nn.ParameterDict({name: 0.1 * torch.randn(size, r) for name, size in sizes.items()})
        self.updates: dict[str, Tensor] = {}
        for path in projections:
            model.get_submodule(path).register_forward_hook(self._adder(path))

    def dense_update(self, layer: int, matrix: int) -> Tensor:
        """Return dW (hidden, heads * head_dim): the heads' A diag(c) B side by side."""
        factors = self.factors
        heads = [
            factors["hidden"] @ torch.diag(c * factors["layers"][layer] * factors["matrices"][matrix])
            @ factors["head_dim"].T
            for c in factors["heads"]
        ]  # fmt: skip
        return torch.cat(heads, dim=1)

    def forward(self, **inputs: Tensor):
        """Return the model's output with the updates of this step's factors."""
        self.updates = {path: self.dense_update(*place) for path, place in self.projections.items()}
        return self.model(**inputs)

    def _adder(self, path: str):
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            update = self.updates[path]
            if update.shape[0] != inputs[0].shape[-1]:  # the output projection: heads on its input side
                update = update.T
            return output + inputs[0] @ update[:, : output.shape[-1]].to(output.dtype)

        return add
