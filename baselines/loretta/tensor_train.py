"""Linear maps held as tensor trains, the building block of LoRETTA. Source: Yang et al. 2024, arXiv:2402.11417, 3.1.

A matrix (inputs, outputs), read row by row, is the product of cores (left rank, dimension, right rank); y = x W + b.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from baselines.loretta.shapes import core_shapes, tensor_shape


def contract(cores: Sequence[Tensor]) -> Tensor:
    """Return the product of neighbouring cores, shape (first left rank, product of dimensions, last right rank)."""
    product = cores[0]
    for core in cores[1:]:
        grown = product.flatten(end_dim=1) @ core.flatten(start_dim=1)
        product = grown.view(product.shape[0], -1, core.shape[2])
    return product


class TensorTrainLinear(nn.Module):
    """A linear layer (..., inputs) -> (..., outputs) whose weight is a tensor train.

    The cores start so that the weight's entries have variance 1 / (inputs + outputs); a bias starts uniform within
    1 / sqrt(outputs). Both as in the released package. With `keep_start` the starting values stay as buffers, and
    `forward(x, start=True)` evaluates the layer as it was at the start.
    """

    def __init__(
        self, inputs: int, outputs: int, shape: Sequence[int], tensor_rank: int, bias: bool, keep_start: bool = False
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        standard_deviation = (inputs + outputs) ** (-0.5 / len(shape))  # of each core, times sqrt(right rank)
        sizes = core_shapes(shape, tensor_rank)
        cores = [torch.randn(size) * (standard_deviation / math.sqrt(size[2])) for size in sizes]
        self.cores = nn.ParameterList(nn.Parameter(core) for core in cores)
        bound = 1 / math.sqrt(outputs)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        self.input_cores = _count_input_cores(shape, inputs) if tensor_rank < min(inputs, outputs) else None
        if keep_start:
            for index, core in enumerate(cores):
                self.register_buffer(f"start_core_{index}", core.clone())
            if self.bias is not None:
                self.register_buffer("start_bias", self.bias.detach().clone())

    @torch.no_grad()
    def zero_last_core(self) -> None:
        """Make the map zero; every other core keeps its start."""
        self.cores[-1].zero_()
        if self.bias is not None:
            self.bias.zero_()

    def matrices(self, start: bool = False) -> list[Tensor]:
        """Return matrices whose product is the weight: two around the tensor rank where a core ends at the inputs."""
        cores = list(self.cores)
        if start:
            dtype = cores[0].dtype  # PEFT raises parameters to float32 under a bf16 model, buffers it leaves
            cores = [self.get_buffer(f"start_core_{index}").to(dtype) for index in range(len(cores))]
        if self.input_cores is None:  # no such core, or a rank so high that two products would cost more than one
            return [contract(cores).view(self.inputs, self.outputs)]
        left, right = contract(cores[: self.input_cores]), contract(cores[self.input_cores :])
        return [left.view(self.inputs, -1), right.view(-1, self.outputs)]

    def weight_matrix(self, start: bool = False) -> Tensor:
        """Return the dense weight (inputs, outputs)."""
        matrices = self.matrices(start)
        return matrices[0] if len(matrices) == 1 else matrices[0] @ matrices[1]

    def forward(self, x: Tensor, start: bool = False) -> Tensor:
        """Return x W + b. `start` needs `keep_start`."""
        for matrix in self.matrices(start):
            x = x @ matrix.to(x.dtype)
        if self.bias is None:
            return x
        bias = self.get_buffer("start_bias") if start else self.bias
        return x + bias.to(x.dtype)


def _count_input_cores(shape: Sequence[int], inputs: int) -> int | None:
    """Return how many leading dimensions multiply to the inputs, or None when a core straddles the boundary."""
    counts = [count for count in range(1, len(shape)) if math.prod(shape[:count]) == inputs]
    return counts[0] if counts else None


def compress_head(backbone: Any, config: dict[str, Any]) -> None:
    """Replace the hidden dense layer of the classification head by a tensor train, with a bias.

    That is RoBERTa's `classifier.dense` and DeBERTa's `pooler.dense`, as released. Heads without a hidden dense layer
    (BERT's, Llama's `score`) and models without a head stay as they are. `config` gives tensor_rank and shapes.
    """
    for name in backbone.geometry.architecture.head:
        head = getattr(backbone.model, name, None)
        dense = getattr(head, "dense", None)
        if head is None or not isinstance(dense, nn.Linear):
            continue
        inputs, outputs = dense.in_features, dense.out_features
        shape = tensor_shape(inputs, outputs, config.get("shapes"))
        train = TensorTrainLinear(inputs, outputs, shape, int(config["tensor_rank"]), bias=True)
        head.dense = train.to(dense.weight.device, dense.weight.dtype)  # drawn on the CPU: one seed, one start
