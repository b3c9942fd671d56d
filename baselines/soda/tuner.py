"""SODA as a PEFT tuner; importing this module registers it. Source: Zhang et al. 2024, arXiv:2405.21050.

W0 = U diag(s) V^T becomes U diag(relu(s + delta)) V^T R^T: shifted singular values and a rotation R of the inputs, a
Kronecker product of small orthogonal matrices (variant svd, read from the released code). Evaluated as
W0 (R^T x) + U diag(relu(s + delta) - s) V^T (R^T x), which is the base layer exactly at delta = 0 and R = I.

Variant qr, W0 = L Q with (L + diag(delta)) Q R^T: the paper names it, no code or text that says which entries of L are
trained could be reached, so training the diagonal is our choice.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.frozen_spectrum import FrozenSpectrum
from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from baselines.soda.factors import rotation_sizes
from baselines.soda.rotation import ROTATIONS, Rotation
from lorta.peft_extension.registry import register_tuner
from lorta.peft_extension.rows import apply_by_row, check_rows

VARIANTS = ("svd", "qr")


@dataclass
class SodaConfig(LinearTunerConfig):
    """SODA's settings. Raises ValueError for an unknown variant or rotation."""

    variant: str = "svd"
    rotation: str = "cayley"  # stiefel, as released, needs the callback `StiefelAdam`
    shift_start: float = 0.0  # of delta; the released code starts at 1e-3, which is no identity
    factors: dict[str, list[int]] | None = field(default=None)  # "768" -> sizes; completed when attached

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SODA"
        self.require_one_of(VARIANTS, "variant")
        self.require_one_of(ROTATIONS, "rotation")

    def sizes(self, inputs: int) -> tuple[int, ...]:
        """Return the rotation sizes of a layer; `factors` keeps them, so that a checkpoint carries them."""
        sizes = rotation_sizes(inputs, self.factors)
        self.factors = {**(self.factors or {}), str(inputs): list(sizes)}
        return sizes


def decompose(weight: Tensor, variant: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (outputs, k), spectrum (k) and right (k, inputs) of a weight, k its smaller side.

    In float32 at least. A shift d of the spectrum changes the weight by left diag(d) right. For qr the spectrum is the
    diagonal of L, made positive so that the decomposition is unique, and left is the identity's first k columns.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if variant == "svd":
        return torch.linalg.svd(weight, full_matrices=False)
    orthonormal, triangular = torch.linalg.qr(weight.T)
    diagonal = triangular.diagonal()
    signs = torch.where(diagonal < 0, -1.0, 1.0).to(weight.dtype)
    left = torch.eye(len(weight), len(diagonal), dtype=weight.dtype, device=weight.device)
    return left, diagonal * signs, signs[:, None] * orthonormal.T


class Spectral(FrozenSpectrum):
    """Rotation and spectral shift of one adapter at one layer.

    The decomposition of the base weight is made when attached and not saved, save the spectrum: loading on a layer with
    another spectrum raises ValueError, because the shift belongs to its values and their order.
    """

    checkpoint = "SODA checkpoint"

    def __init__(self, weight: Tensor, config: SodaConfig) -> None:
        left, spectrum, right = decompose(weight.detach(), config.variant)
        super().__init__(left, spectrum, right)
        self.rectified = config.variant == "svd"
        self.rotation = Rotation(config.sizes(weight.shape[1]), config.rotation)
        self.shift = nn.Parameter(torch.full(spectrum.shape, config.shift_start))

    def spectral_change(self) -> Tensor:
        """Return what is added to the spectrum (k): the shift, but no singular value falls below zero."""
        spectrum = self.get_buffer("spectrum")
        return (spectrum + self.shift).relu() - spectrum if self.rectified else self.shift

    def shifted(self, x: Tensor) -> Tensor:
        """Return left diag(change) right x for rows x (..., inputs), rotated already."""
        hidden = functional.linear(x, self.get_buffer("right").to(x.dtype)) * self.spectral_change().to(x.dtype)
        return functional.linear(hidden, self.get_buffer("left").to(x.dtype))

    def shift_weight(self) -> Tensor:
        """Return left diag(change) right, (outputs, inputs)."""
        return self.get_buffer("left") * self.spectral_change() @ self.get_buffer("right")


class SodaLayer(BranchLayer):
    """A linear layer in spectral form. One adapter acts at a time, as it replaces the weight and adds nothing to it."""

    adapter_layer_names = ("soda_branch",)
    make_branch = Spectral

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer of the rotated input plus the shift's part. Raises ValueError for two adapters."""
        names = kwargs.pop("adapter_names", None)
        if names is not None and not self.disable_adapters:
            check_rows(self, x, names)
            return apply_by_row(x, names, lambda rows, adapters: self._with(adapters, rows, *args, **kwargs))
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        return self._with(self.active_adapters, x, *args, **kwargs)

    def _with(self, adapters: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output with one of these adapters, the one that acts on this layer."""
        active = [name for name in adapters if name in self._get_available_adapters()]
        if not active:
            return self.base_layer(x, *args, **kwargs)
        if len(active) > 1:
            raise ValueError(f"SODA adapters act one at a time, but {', '.join(active)} are active: set one of them.")
        branch = self.branch(active[0])
        turned = branch.rotation(x.to(torch.promote_types(branch.shift.dtype, torch.float32)))
        result = self.base_layer(turned.to(x.dtype), *args, **kwargs)
        return result + branch.shifted(turned).to(result.dtype)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the difference (outputs, inputs) between the adapted and the base weight."""
        base, merged = self.get_base_weight(), adapter in self.merged_adapters
        other = self._turned_base_weight(adapter, sign=-1 if merged else 1)
        return base - other if merged else other - base

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put an adapter into the base weight, as `AdditiveTunerLayer.merge`. Raises ValueError for a second one."""
        wanted = [name for name in adapter_names or self.active_adapters if name in self._get_available_adapters()]
        if len({*wanted, *self.merged_adapters}) > 1:
            raise ValueError(f"SODA adapters merge one at a time, got {', '.join(wanted)}: unmerge first, name one.")
        super().merge(safe_merge, adapter_names)

    def _shifted_base_weight(self, adapter: str, sign: int) -> Tensor:
        return self._turned_base_weight(adapter, sign).to(self.get_base_weight().dtype)

    @torch.no_grad()
    def _turned_base_weight(self, adapter: str, sign: int) -> Tensor:
        """Return (W0 + shift) R^T of the base weight W0, or with sign -1 the base weight of a merged W: W R - shift."""
        branch: Spectral = self.branch(adapter)
        weight = self.get_base_weight().to(torch.promote_types(branch.shift.dtype, torch.float32))
        if sign > 0:
            return branch.rotation.back(weight + branch.shift_weight())
        return branch.rotation(weight) - branch.shift_weight()


class SodaModel(LinearTuner):
    """A model with SODA adapters."""

    prefix = "soda_"
    tuner_layer_cls = SodaLayer


register_tuner("soda", SodaConfig, SodaModel, SodaModel.prefix)
