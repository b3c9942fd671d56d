"""Deep LoRA, updates that are products of three matrices of tiny start (Yaras et al. 2024, arXiv:2406.04112).

W = W0 + W3 W2 W1 with every factor init_scale times a (semi-)orthogonal matrix and no alpha / r: the first update has
the spectral norm init_scale**3, 1e-9. Gradients then act in a low-dimensional subspace of each factor. Two forms:
- narrow: the factors have the width r (the released figures; with r the larger side it is the paper's wide form);
- compressed: W0 + left (W3 W2 W1) right^T with factors r x r and frames that hold the subspace in which the wide form
  would move, found from the gradient of one batch (`Compression`). The frames have a rate of their own, gamma times the
  factors': `rate_factors` in the YAML; `train_frames: false` is gamma = 0.
Read from the released code (cjyaras/deep-lora-transformers, JAX); the paper's text was not reached. The released Adam
has eps 1e-6, this harness torch's 1e-8; with gradients as small as these it decides how long the start lasts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from baselines.training_rows import DataDrivenStart
from lorta.peft_extension.registry import register_tuner

FORMS = ("narrow", "compressed")


@dataclass
class DeepLoraConfig(LinearTunerConfig):
    """Deep LoRA's settings. Raises ValueError for values that make no update."""

    r: int = 8
    depth: int = 3  # 2 is the released code's vanilla LoRA: normal first factor, zero second one
    init_scale: float = 1e-3
    form: str = "narrow"
    train_frames: bool = True  # compressed form only

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "DEEP_LORA"
        self.require_at_least(1, "r")
        self.require_one_of(FORMS, "form")
        self.require_at_least(3 if self.form == "compressed" else 2, "depth")
        if self.form == "compressed" and self.r % 2:
            raise ValueError(f"DeepLoraConfig.r must be even in the compressed form, got {self.r}.")


def orthogonal(rows: int, columns: int) -> Tensor:
    """Return a random matrix with orthonormal rows or columns, whichever are fewer."""
    return nn.init.orthogonal_(torch.empty(rows, columns))


class DeepFactors(nn.Module):
    """The factors of one adapter at one layer, first applied first. Raises ValueError for a rank above the sides.

    In the compressed form the frames start random; `Compression` replaces them before the first step.
    """

    def __init__(self, weight: Tensor, config: DeepLoraConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        compressed = config.form == "compressed"
        largest = min(inputs, outputs) if compressed else max(inputs, outputs)
        if config.r > largest:
            raise ValueError(
                f"Deep LoRA's rank {config.r} must be at most {largest} for {inputs} inputs and {outputs} outputs."
            )
        if compressed:
            factors = [config.init_scale * torch.eye(config.r) for _ in range(config.depth)]
            self._set_frames(orthogonal(outputs, config.r), orthogonal(inputs, config.r), config.train_frames)
        else:
            widths = [inputs, *[config.r] * (config.depth - 1), outputs]
            factors = [config.init_scale * orthogonal(widths[i + 1], widths[i]) for i in range(config.depth)]
            if config.depth == 2:
                factors = [torch.randn(config.r, inputs), torch.zeros(outputs, config.r)]
        self.factors = nn.ParameterList(nn.Parameter(factor) for factor in factors)

    def _set_frames(self, left: Tensor, right: Tensor, trained: bool) -> None:
        for name, frame in (("left", left), ("right", right)):
            if trained:
                self.register_parameter(name, nn.Parameter(frame))
            else:
                self.register_buffer(name, frame)

    def matrices(self) -> list[Tensor]:
        """Return the matrices of the product, first applied first: (r, inputs), (r, r) and so on, (outputs, r)."""
        if not hasattr(self, "left"):
            return list(self.factors)
        left, right = cast(Tensor, self.left), cast(Tensor, self.right)
        return [right.T, *self.factors, left]

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs), thin matrix after thin matrix."""
        for matrix in self.matrices():
            x = nn.functional.linear(x, matrix.to(x.dtype))
        return x

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        return torch.linalg.multi_dot(self.matrices()[::-1])


class DeepLoraLayer(BranchLayer):
    """A linear layer with Deep LoRA updates."""

    adapter_layer_names = ("deep_lora_branch",)
    make_branch = DeepFactors


class DeepLoraModel(LinearTuner):
    """A model with Deep LoRA adapters."""

    prefix = "deep_lora_"
    tuner_layer_cls = DeepLoraLayer


def compressed_frames(gradient: Tensor, start: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return left (outputs, r) and right (inputs, r) of the compressed form.

    `gradient` (outputs, inputs) is that of the weight at the start; `start` is the wide form's first update divided by
    init_scale**depth, a matrix with orthonormal rows or columns. The frame of the larger side is orthonormal and spans
    what the top r / 2 singular vectors of the gradient reach from either side; the released code finds the same space
    as the complement of an intersection of null spaces.
    """
    if gradient.shape[0] > gradient.shape[1]:
        right, left = compressed_frames(gradient.T, start.T, r)
        return left, right
    left_vectors, _, right_vectors = torch.linalg.svd(gradient, full_matrices=False)
    span = torch.cat([start.T @ left_vectors[:, : r // 2], right_vectors[: r // 2].T], dim=1)
    right = torch.linalg.qr(span).Q
    return start @ right, right


def compress(model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Set the frames of all active adapters from the gradient of one batch, as dropout-free as evaluation.

    One dense gradient exists at a time. Raises ValueError for base weights that cannot have one, such as 4-bit ones.
    """
    layers = [module for module in model.modules() if isinstance(module, DeepLoraLayer)]
    weights = [cast(Tensor, layer.get_base_layer().weight) for layer in layers]
    if not all(weight.is_floating_point() for weight in weights):
        raise ValueError("Deep LoRA's compressed form needs gradients of the base weights: use form: narrow instead.")
    training, handles = model.training, []
    for layer, weight in zip(layers, weights, strict=True):
        handles.append(weight.requires_grad_(True).register_post_accumulate_grad_hook(partial(_set_frames, layer)))
    try:
        model.eval()(**batch).loss.backward()
    finally:
        for handle, weight in zip(handles, weights, strict=True):
            handle.remove()
            weight.requires_grad_(False)
        model.train(training).zero_grad()


@torch.no_grad()
def _set_frames(layer: DeepLoraLayer, weight: Tensor) -> None:
    gradient, weight.grad = cast(Tensor, weight.grad).float(), None
    start = orthogonal(*gradient.shape).to(gradient.device)  # a product of the wide form's orthogonal factors is one
    for adapter in layer.active_adapters:
        branch = layer.branch(adapter)
        left, right = compressed_frames(gradient, start, branch.left.shape[1])
        branch.left.copy_(left)
        branch.right.copy_(right)


class Compression(DataDrivenStart):
    """Finds the compressed form's frames before the first step, from the first rows of the training split.

    The released code takes the first batch of the shuffled rows; here that would move the order of the batches.
    """

    def start(self, model: Any, batches: Iterator[dict[str, Tensor]]) -> None:
        """Compress on as many rows as a batch has."""
        compress(model, next(batches))


register_tuner("deep_lora", DeepLoraConfig, DeepLoraModel, DeepLoraModel.prefix)
