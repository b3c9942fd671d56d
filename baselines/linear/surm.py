"""SURM, structured unrestricted-rank matrices (Sehanobish et al. 2024, arXiv:2406.17740) as additive updates.

Four structures, each a product whose one part starts random and whose other starts at zero. For a square layer of d:
- circulant: C(a * b), one circulant matrix whose first column is an elementwise product;
- toeplitz: T(b) T(a), two symmetric Toeplitz matrices;
- ldr, of low displacement rank r: the sum over k of C(b_k) S(a_k), a circulant times a skew-circulant matrix;
- kronecker: B (x) A, with A (r, inputs / r) and B (outputs / r, r), scaled by alpha / r.
All are read from the released code (arijitthegame/structured-matrices-PEFT), whose circulant, Toeplitz and LDR layers
are square. Rectangular layers (grouped keys and values, the feed-forward block) are our extension: the structure has
the larger side's size, inputs are padded with zeros, outputs are cropped. Products use FFTs; no dense matrix is built
outside of merging. The released forward pass builds the Kronecker product on every call.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner

STRUCTURES = ("circulant", "toeplitz", "ldr", "kronecker")


@dataclass
class SurmConfig(LinearTunerConfig):
    """SURM's settings. Raises ValueError for an unknown structure, or a rank below 1."""

    structure: str = "circulant"
    r: int = 1  # ldr: terms, the displacement rank; kronecker: the inner size, which changes the rank and not the count
    product: bool = True  # circulant: train a and b of a * b, as released; False: one column that starts at zero
    alpha: float = 1.0  # the update is multiplied by alpha; kronecker: by alpha / r
    init_std: float = 0.02  # of the random part of circulant, toeplitz and ldr; kronecker: Kaiming-uniform
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SURM"
        self.require_one_of(STRUCTURES, "structure")
        self.require_at_least(1, "r")


def circulant_product(column: Tensor, x: Tensor) -> Tensor:
    """Return C x for the circulant C of a first column (d): C[i, j] = column[(i - j) mod d].

    x is (..., at most d), as if padded with zeros; so it is in the next two functions.
    """
    size = column.shape[-1]  # without it an odd d comes back even
    return torch.fft.irfft(torch.fft.rfft(column) * torch.fft.rfft(x, n=size), n=size)


def low_displacement_product(columns: Tensor, skew_columns: Tensor, x: Tensor) -> Tensor:
    """Return the sum over k of C(columns[k]) S(skew_columns[k]) x, with both (terms, d).

    The skew-circulant S of a first column is the circulant one with its entries above the diagonal negated. Twisted by
    the powers of exp(i pi / d), a root of z^d = -1, it is circulant. Transforms of x and of the sum are taken once.
    """
    size = columns.shape[-1]
    angle = torch.arange(size, device=x.device, dtype=x.dtype) * (math.pi / size)
    twist = torch.polar(torch.ones_like(angle), angle)
    twisted, skew_spectra = torch.fft.fft(x * twist[: x.shape[-1]], n=size), torch.fft.fft(skew_columns * twist)
    spectrum = torch.zeros_like(twisted[..., : size // 2 + 1])
    for column_spectrum, skew_spectrum in zip(torch.fft.rfft(columns), skew_spectra, strict=True):
        skewed = (twist.conj() * torch.fft.ifft(skew_spectrum * twisted)).real
        spectrum = spectrum + column_spectrum * torch.fft.rfft(skewed)
    return torch.fft.irfft(spectrum, n=size)


def symmetric_toeplitz_product(column: Tensor, x: Tensor) -> Tensor:
    """Return T x for the symmetric Toeplitz T of a first column (d): T[i, j] = column[|i - j|].

    T is the corner of a circulant of twice its size.
    """
    size = column.shape[-1]
    embedded = torch.cat([column, column.new_zeros(1), column[1:].flip(0)])
    return circulant_product(embedded, x)[..., :size]


def kronecker_product(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """Return (left (x) right) x by two small products; x is (..., left columns * right columns)."""
    rows = x.unflatten(-1, (left.shape[1], right.shape[1]))
    return (left @ (rows @ right.T)).flatten(-2)


class Structured(nn.Module):
    """One structured update of a layer. `random` and `zero` are named after how they start.

    Both are (terms, d) with d the larger side of the layer, or for kronecker A (r, inputs / r) and B (outputs / r, r);
    a circulant that is no product has no `random`. Raises ValueError when kronecker's r does not divide a side.
    """

    def __init__(self, weight: Tensor, config: SurmConfig) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.structure, self.scaling = config.structure, config.alpha
        self.dropout = nn.Dropout(config.dropout)
        if config.structure == "kronecker":
            self._start_kronecker(config.r)
            return
        size = max(self.inputs, self.outputs)
        terms = config.r if config.structure == "ldr" else 1
        if config.structure != "circulant" or config.product:
            self.random = nn.Parameter(torch.randn(terms, size) * config.init_std)
        self.zero = nn.Parameter(torch.zeros(terms, size))

    def _start_kronecker(self, rank: int) -> None:
        if self.inputs % rank or self.outputs % rank:
            raise ValueError(
                f"SURM's Kronecker r = {rank} must divide {self.inputs} inputs and {self.outputs} outputs: choose "
                f"another rank."
            )
        self.scaling /= rank
        self.random = nn.Parameter(torch.empty(rank, self.inputs // rank))
        nn.init.kaiming_uniform_(self.random, a=math.sqrt(5))
        self.zero = nn.Parameter(torch.zeros(self.outputs // rank, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        return self._multiply(self.dropout(x))

    def _multiply(self, x: Tensor) -> Tensor:
        if self.structure == "kronecker":
            return self.scaling * kronecker_product(self.zero, self.random, x)
        wide = torch.promote_types(x.dtype, torch.float32)  # there is no Fourier transform of half precision on a CPU
        rows, zero = x.to(wide), self.zero.to(wide)
        random = self.random.to(wide) if hasattr(self, "random") else torch.ones_like(zero)
        if self.structure == "circulant":
            product = circulant_product((zero * random)[0], rows)
        elif self.structure == "toeplitz":
            product = symmetric_toeplitz_product(zero[0], symmetric_toeplitz_product(random[0], rows))
        else:
            product = low_displacement_product(zero, random, rows)
        return (self.scaling * product[..., : self.outputs]).to(x.dtype)

    def delta_weight(self) -> Tensor:
        """Return the dense update (outputs, inputs): the structure applied to every unit vector."""
        return self._multiply(torch.eye(self.inputs, dtype=self.zero.dtype, device=self.zero.device)).T


class SurmLayer(BranchLayer):
    """A linear layer with structured updates."""

    adapter_layer_names = ("surm_branch",)
    make_branch = Structured


class SurmModel(LinearTuner):
    """A model with SURM adapters."""

    prefix = "surm_"
    tuner_layer_cls = SurmLayer


register_tuner("surm", SurmConfig, SurmModel, SurmModel.prefix)
