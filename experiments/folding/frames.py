"""Backbone frames and torsion angles of known structures, in torch. Jumper et al. 2021, supplement 1.8 and 1.9.1.

Shapes: B chains, L residues, 37 atoms in AlphaFold's order; masks are 1 where something is known. Coordinates are in
angstrom, residue numbers (`residues`) AlphaFold's, 20 for an unknown one.
"""

from functools import cache

import torch
from torch import Tensor
from transformers.models.esm.openfold_utils import residue_constants as constants
from transformers.models.esm.openfold_utils.rigid_utils import Rigid

N, CA, C, CB, O = (constants.atom_order[name] for name in ("N", "CA", "C", "CB", "O"))  # noqa: E741
LONGEST_BOND = 2.0  # angstrom between C and the next N; 1.33 in a chain without a gap
TORSIONS = ("omega", "phi", "psi", "chi1", "chi2", "chi3", "chi4")  # the order of the model's angles


def backbone_frames(positions: Tensor, mask: Tensor) -> tuple[Rigid, Tensor]:
    """Return frames (B, L) from N, CA and C, and where all three are known. Supplement, algorithm 21.

    The origin is CA, the x axis points to C, and N lies in the half of the x-y plane with y above 0.
    """
    n, ca, c = positions[..., N, :], positions[..., CA, :], positions[..., C, :]
    return Rigid.from_3_points(2 * ca - c, ca, n), mask[..., N] * mask[..., CA] * mask[..., C]


def torsion_angles(positions: Tensor, mask: Tensor, residues: Tensor) -> tuple[Tensor, Tensor]:
    """Return (sine, cosine) (B, L, 7, 2) of omega, phi, psi and chi1 to chi4, and where they are defined.

    omega and phi are those before a residue: the first one has none, nor has one behind a gap in the chain. psi is
    read off the residue's own O, which lies opposite to the next N. Supplement, 1.8.1, table 2.
    """
    before, before_mask = positions.roll(1, dims=1), mask.roll(1, dims=1)
    bond = (positions[..., N, :] - before[..., C, :]).norm(dim=-1)
    bonded = (bond < LONGEST_BOND) & (torch.arange(bond.shape[1], device=bond.device) > 0)
    before_mask = before_mask * bonded[..., None]
    both, both_mask = torch.cat([before, positions], dim=-2), torch.cat([before_mask, mask], dim=-1)
    atoms = _torsion_atoms(residues.device)[residues]  # (B, L, 7, 4)
    points = both.gather(-2, atoms.flatten(-2)[..., None].expand(-1, -1, -1, 3)).unflatten(-2, (7, 4))
    known = both_mask.gather(-1, atoms.flatten(-2)).unflatten(-1, (7, 4)).prod(dim=-1)
    opposite = torch.tensor([-1.0 if name == "psi" else 1.0 for name in TORSIONS], device=positions.device)
    angles = dihedrals(*points.unbind(dim=-2)) * opposite[:, None]
    return angles, known * _has_torsion(residues.device)[residues]


def dihedrals(first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> Tensor:
    """Return (sine, cosine) (..., 2) of the angle about the bond from the second point to the third (IUPAC's sign)."""
    axis = third - second
    one, other = (second - first).cross(axis, dim=-1), axis.cross(fourth - third, dim=-1)
    cosine = (one * other).sum(dim=-1)
    sine = one.cross(other, dim=-1).mul(torch.nn.functional.normalize(axis, dim=-1)).sum(dim=-1)
    return torch.nn.functional.normalize(torch.stack([sine, cosine], dim=-1), dim=-1)


def equal_angles(angles: Tensor, residues: Tensor) -> Tensor:
    """Return the angles (B, L, 7, 2) of the same structure under its other atom names.

    They are turned by pi where that is only a change of names (chi2 of D, F, Y; chi3 of E), as they were elsewhere.
    Supplement, 1.9.1.
    """
    periodic = torch.tensor(constants.chi_pi_periodic, device=angles.device)[residues]
    sign = torch.cat([torch.ones_like(periodic[..., :3]), 1 - 2 * periodic], dim=-1)
    return angles * sign[..., None]


def pseudo_beta(positions: Tensor, mask: Tensor, residues: Tensor) -> tuple[Tensor, Tensor]:
    """Return CB (B, L, 3), CA for glycine, and where it is known. Supplement, 1.9.8."""
    glycine = residues == constants.restype_order["G"]
    points = torch.where(glycine[..., None], positions[..., CA, :], positions[..., CB, :])
    return points, torch.where(glycine, mask[..., CA], mask[..., CB])


@cache
def _torsion_atoms(device: torch.device) -> Tensor:
    """Return the four atoms of each torsion (21 residues, 7, 4): below 37 of the residue before, then its own."""
    own = 37
    backbone = [[CA, C, own + N, own + CA], [C, own + N, own + CA, own + C], [own + N, own + CA, own + C, own + O]]
    sides = torch.zeros(21, 4, 4, dtype=torch.long)
    sides[:20] = torch.tensor(
        [
            [[constants.atom_order[atom] for atom in chi] for chi in chis] + [[0] * 4] * (4 - len(chis))
            for chis in (constants.chi_angles_atoms[constants.restype_1to3[letter]] for letter in constants.restypes)
        ]
    )
    return torch.cat([torch.tensor(backbone).expand(21, 3, 4), sides + own], dim=1).to(device)


@cache
def _has_torsion(device: torch.device) -> Tensor:
    """Return which torsions a residue has (21, 7): 1 or 0."""
    sides = torch.tensor([*constants.chi_angles_mask, [0.0] * 4])
    return torch.cat([torch.ones(21, 3), sides], dim=1).to(device)
