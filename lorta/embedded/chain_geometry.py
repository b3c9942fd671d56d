"""From torsion angles to the heavy atoms of a chain, with ideal bonds and angles.

Within a residue the geometry is that of `amino_acids`; between residues that of Engh and Huber as AlphaFold 2 uses it
(`residue_constants.py`: between_res_bond_length_c_n, between_res_cos_angles_*). Peptide bonds are trans. Points are
tuples of floats: arrays of three numbers cost ten times the time.
"""

import math
from collections.abc import Sequence

import numpy as np

from lorta.embedded.amino_acids import ATOM_ORDER, ATOMS, chi_axes

BOND_C_N = 1.329  # angstrom
COSINE_CA_C_N, COSINE_C_N_CA = -0.4473, -0.5203
OMEGA = math.pi  # trans
FIRST_CHI_GROUP = 4
Point = tuple[float, float, float]  # angstrom
Backbone = tuple[Point, Point, Point]  # N, CA, C


def place(first: Point, second: Point, third: Point, torsion: float, local: Point) -> Point:
    """Return the point at `local` (x, y, z) in the frame that a torsion turns about the bond second -> third.

    x runs along the bond, from its end; a point with y > 0 and z = 0 makes the torsion (radians, IUPAC's sign) with
    the three atoms.
    """
    along = _unit(_minus(third, second))
    cis = _unit(_across(_minus(first, second), along))
    side = _cross(along, cis)
    cosine, sine = math.cos(torsion), math.sin(torsion)
    x, y, z = local[0], local[1] * cosine - local[2] * sine, local[1] * sine + local[2] * cosine
    return _frame_point(third, (along, cis, side), (x, y, z))


def build_chain(
    sequence: str, phi: Sequence[float], psi: Sequence[float], chi: Sequence[Sequence[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (L, 37, 3) float64 in angstrom and mask (L, 37) bool of a chain given its torsions, in radians.

    `phi[0]` has no atom to act on. `chi` holds up to four angles for each residue; those it does not have are unused.
    Raises KeyError for a letter that is none of the twenty amino acids.
    """
    positions = np.zeros((len(sequence), len(ATOM_ORDER), 3))
    mask = np.zeros(positions.shape[:2], dtype=bool)
    backbone = _own_backbone(sequence[0])
    for number, letter in enumerate(sequence):
        if number:
            backbone = _next_backbone(backbone, letter, psi[number - 1], phi[number])
        for name, point in _residue(letter, backbone, psi[number], chi[number]).items():
            positions[number, ATOM_ORDER[name]] = point
            mask[number, ATOM_ORDER[name]] = True
    return positions, mask


def _minus(one: Point, two: Point) -> Point:
    return one[0] - two[0], one[1] - two[1], one[2] - two[2]


def _dot(one: Point, two: Point) -> float:
    return one[0] * two[0] + one[1] * two[1] + one[2] * two[2]


def _cross(one: Point, two: Point) -> Point:
    return one[1] * two[2] - one[2] * two[1], one[2] * two[0] - one[0] * two[2], one[0] * two[1] - one[1] * two[0]


def _unit(vector: Point) -> Point:
    length = math.sqrt(_dot(vector, vector))
    return vector[0] / length, vector[1] / length, vector[2] / length


def _across(vector: Point, along: Point) -> Point:
    """Return the part of a vector that is perpendicular to a unit vector."""
    part = _dot(vector, along)
    return vector[0] - part * along[0], vector[1] - part * along[1], vector[2] - part * along[2]


def _frame_point(origin: Point, axes: tuple[Point, Point, Point], local: Point) -> Point:
    x, y, z = (origin[i] + local[0] * axes[0][i] + local[1] * axes[1][i] + local[2] * axes[2][i] for i in range(3))
    return x, y, z


def _own_backbone(letter: str) -> Backbone:
    own = {atom.name: atom.place for atom in ATOMS[letter]}
    return own["N"], own["CA"], own["C"]


def _next_backbone(before: Backbone, letter: str, psi: float, phi: float) -> Backbone:
    """Return the backbone behind another; lengths and the angle at CA are the residue's own."""
    start, middle, end = _own_backbone(letter)
    to_start, to_end = _minus(start, middle), _minus(end, middle)
    n_ca, ca_c = math.sqrt(_dot(to_start, to_start)), math.sqrt(_dot(to_end, to_end))
    cosine = _dot(to_start, to_end) / (n_ca * ca_c)
    nitrogen = place(*before, psi, _bent(BOND_C_N, COSINE_CA_C_N))
    alpha = place(before[1], before[2], nitrogen, OMEGA, _bent(n_ca, COSINE_C_N_CA))
    return nitrogen, alpha, place(before[2], nitrogen, alpha, phi, _bent(ca_c, cosine))


def _bent(length: float, cosine: float) -> Point:
    """Return the local place of an atom at a bond length and the cosine of a bond angle."""
    return -length * cosine, length * math.sqrt(1 - cosine * cosine), 0.0


def _residue(letter: str, backbone: Backbone, psi: float, chi: Sequence[float]) -> dict[str, Point]:
    """Return the heavy atoms of one residue; a chi's group needs the atoms of the groups before it."""
    nitrogen, alpha, carbon = backbone
    along = _unit(_minus(carbon, alpha))
    across = _unit(_across(_minus(nitrogen, alpha), along))
    frame = (along, across, _cross(along, across))
    axes = chi_axes(letter)
    atoms: dict[str, Point] = {}
    for atom in sorted(ATOMS[letter], key=lambda atom: atom.group):
        if atom.group == 0:
            atoms[atom.name] = _frame_point(alpha, frame, atom.place)
        elif atom.group < FIRST_CHI_GROUP:  # the oxygen is opposite the next nitrogen
            atoms[atom.name] = place(*backbone, psi + math.pi, atom.place)
        else:
            number = atom.group - FIRST_CHI_GROUP
            first, second, third = (atoms[name] for name in axes[number])
            atoms[atom.name] = place(first, second, third, chi[number], atom.place)
    return atoms
