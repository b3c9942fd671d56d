"""The twenty amino acids: names, atoms and ideal geometry, as AlphaFold 2 tabulates them. numpy only.

Source: Jumper et al. 2021, supplementary methods 1.8.4 and table 2, and `residue_constants.py` of its release (the
values that `transformers` carries too; a test compares). An atom's place is given in the frame of its rigid group: 0
the backbone, 3 the carbonyl oxygen behind psi, 4 to 7 the side chain behind chi 1 to chi 4; x along the bond that the
torsion turns, y towards the atom that defines it; angstrom.
"""

from typing import NamedTuple

ATOM_TYPES = (
    *("N", "CA", "C", "CB", "O", "CG", "CG1", "CG2", "OG", "OG1", "SG", "CD", "CD1", "CD2", "ND1", "ND2", "OD1"),
    *("OD2", "SD", "CE", "CE1", "CE2", "CE3", "NE", "NE1", "NE2", "OE1", "OE2", "CH2", "NH1", "NH2", "OH", "CZ"),
    *("CZ2", "CZ3", "NZ", "OXT"),
)
ATOM_ORDER = {name: place for place, name in enumerate(ATOM_TYPES)}


class Atom(NamedTuple):
    """One heavy atom: its name, its rigid group and its place (x, y, z) there, in angstrom."""

    name: str
    group: int
    place: tuple[float, float, float]


_TABLE = {  # one letter -> three letters, atoms
    "A": (
        "ALA",
        "N 0 -0.525 1.363 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.529 -0.774 -1.205; O 3 0.627 1.062 0.000",
    ),
    "R": (
        "ARG",
        "N 0 -0.524 1.362 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.524 -0.778 -1.209; O 3 0.626 1.062 0.000; CG 4 0.616 1.390 0.000; "
        "CD 5 0.564 1.414 0.000; NE 6 0.539 1.357 0.000; NH1 7 0.206 2.301 0.000; "
        "NH2 7 2.078 0.978 0.000; CZ 7 0.758 1.093 0.000",
    ),
    "N": (
        "ASN",
        "N 0 -0.536 1.357 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.531 -0.787 -1.200; O 3 0.625 1.062 0.000; CG 4 0.584 1.399 0.000; "
        "ND2 5 0.593 -1.188 0.001; OD1 5 0.633 1.059 0.000",
    ),
    "D": (
        "ASP",
        "N 0 -0.525 1.362 0.000; CA 0 0.000 0.000 0.000; C 0 1.527 0.000 0.000; "
        "CB 0 -0.526 -0.778 -1.208; O 3 0.626 1.062 0.000; CG 4 0.593 1.398 0.000; "
        "OD1 5 0.610 1.091 0.000; OD2 5 0.592 -1.101 -0.003",
    ),
    "C": (
        "CYS",
        "N 0 -0.522 1.362 0.000; CA 0 0.000 0.000 0.000; C 0 1.524 0.000 0.000; "
        "CB 0 -0.519 -0.773 -1.212; O 3 0.625 1.062 0.000; SG 4 0.728 1.653 0.000",
    ),
    "Q": (
        "GLN",
        "N 0 -0.526 1.361 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.525 -0.779 -1.207; O 3 0.626 1.062 0.000; CG 4 0.615 1.393 0.000; "
        "CD 5 0.587 1.399 0.000; NE2 6 0.593 -1.189 -0.001; OE1 6 0.634 1.060 0.000",
    ),
    "E": (
        "GLU",
        "N 0 -0.528 1.361 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.526 -0.781 -1.207; O 3 0.626 1.062 0.000; CG 4 0.615 1.392 0.000; "
        "CD 5 0.600 1.397 0.000; OE1 6 0.607 1.095 0.000; OE2 6 0.589 -1.104 -0.001",
    ),
    "G": (
        "GLY",
        "N 0 -0.572 1.337 0.000; CA 0 0.000 0.000 0.000; C 0 1.517 0.000 0.000; O 3 0.626 1.062 0.000",
    ),
    "H": (
        "HIS",
        "N 0 -0.527 1.360 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.525 -0.778 -1.208; O 3 0.625 1.063 0.000; CG 4 0.600 1.370 0.000; "
        "CD2 5 0.889 -1.021 0.003; ND1 5 0.744 1.160 0.000; CE1 5 2.030 0.851 0.002; "
        "NE2 5 2.145 -0.466 0.004",
    ),
    "I": (
        "ILE",
        "N 0 -0.493 1.373 0.000; CA 0 0.000 0.000 0.000; C 0 1.527 0.000 0.000; "
        "CB 0 -0.536 -0.793 -1.213; O 3 0.627 1.062 0.000; CG1 4 0.534 1.437 0.000; "
        "CG2 4 0.540 -0.785 -1.199; CD1 5 0.619 1.391 0.000",
    ),
    "L": (
        "LEU",
        "N 0 -0.520 1.363 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.522 -0.773 -1.214; O 3 0.625 1.063 0.000; CG 4 0.678 1.371 0.000; "
        "CD1 5 0.530 1.430 0.000; CD2 5 0.535 -0.774 1.200",
    ),
    "K": (
        "LYS",
        "N 0 -0.526 1.362 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.524 -0.778 -1.208; O 3 0.626 1.062 0.000; CG 4 0.619 1.390 0.000; "
        "CD 5 0.559 1.417 0.000; CE 6 0.560 1.416 0.000; NZ 7 0.554 1.387 0.000",
    ),
    "M": (
        "MET",
        "N 0 -0.521 1.364 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.523 -0.776 -1.210; O 3 0.625 1.062 0.000; CG 4 0.613 1.391 0.000; "
        "SD 5 0.703 1.695 0.000; CE 6 0.320 1.786 0.000",
    ),
    "F": (
        "PHE",
        "N 0 -0.518 1.363 0.000; CA 0 0.000 0.000 0.000; C 0 1.524 0.000 0.000; "
        "CB 0 -0.525 -0.776 -1.212; O 3 0.626 1.062 0.000; CG 4 0.607 1.377 0.000; "
        "CD1 5 0.709 1.195 0.000; CD2 5 0.706 -1.196 0.000; CE1 5 2.102 1.198 0.000; "
        "CE2 5 2.098 -1.201 0.000; CZ 5 2.794 -0.003 -0.001",
    ),
    "P": (
        "PRO",
        "N 0 -0.566 1.351 0.000; CA 0 0.000 0.000 0.000; C 0 1.527 0.000 0.000; "
        "CB 0 -0.546 -0.611 -1.293; O 3 0.621 1.066 0.000; CG 4 0.382 1.445 0.000; "
        "CD 5 0.477 1.424 0.000",
    ),
    "S": (
        "SER",
        "N 0 -0.529 1.360 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.518 -0.777 -1.211; O 3 0.626 1.062 0.000; OG 4 0.503 1.325 0.000",
    ),
    "T": (
        "THR",
        "N 0 -0.517 1.364 0.000; CA 0 0.000 0.000 0.000; C 0 1.526 0.000 0.000; "
        "CB 0 -0.516 -0.793 -1.215; O 3 0.626 1.062 0.000; CG2 4 0.550 -0.718 -1.228; "
        "OG1 4 0.472 1.353 0.000",
    ),
    "W": (
        "TRP",
        "N 0 -0.521 1.363 0.000; CA 0 0.000 0.000 0.000; C 0 1.525 0.000 0.000; "
        "CB 0 -0.523 -0.776 -1.212; O 3 0.627 1.062 0.000; CG 4 0.609 1.370 0.000; "
        "CD1 5 0.824 1.091 0.000; CD2 5 0.854 -1.148 -0.005; CE2 5 2.186 -0.678 -0.007; "
        "CE3 5 0.622 -2.530 -0.007; NE1 5 2.140 0.690 -0.004; CH2 5 3.028 -2.890 -0.013; "
        "CZ2 5 3.283 -1.543 -0.011; CZ3 5 1.715 -3.389 -0.011",
    ),
    "Y": (
        "TYR",
        "N 0 -0.522 1.362 0.000; CA 0 0.000 0.000 0.000; C 0 1.524 0.000 0.000; "
        "CB 0 -0.522 -0.776 -1.213; O 3 0.627 1.062 0.000; CG 4 0.607 1.382 0.000; "
        "CD1 5 0.716 1.195 0.000; CD2 5 0.713 -1.194 -0.001; CE1 5 2.107 1.200 -0.002; "
        "CE2 5 2.104 -1.201 -0.003; OH 5 4.168 -0.002 -0.005; CZ 5 2.791 -0.001 -0.003",
    ),
    "V": (
        "VAL",
        "N 0 -0.494 1.373 0.000; CA 0 0.000 0.000 0.000; C 0 1.527 0.000 0.000; "
        "CB 0 -0.533 -0.795 -1.213; O 3 0.627 1.062 0.000; CG1 4 0.540 1.429 0.000; "
        "CG2 4 0.533 -0.776 1.203",
    ),
}
_SIDE_CHAINS = {  # the atoms in line: each three in a row are the axis of one chi
    "R": "N CA CB CG CD NE",
    "N": "N CA CB CG",
    "D": "N CA CB CG",
    "C": "N CA CB",
    "Q": "N CA CB CG CD",
    "E": "N CA CB CG CD",
    "H": "N CA CB CG",
    "I": "N CA CB CG1",
    "L": "N CA CB CG",
    "K": "N CA CB CG CD CE",
    "M": "N CA CB CG SD",
    "F": "N CA CB CG",
    "P": "N CA CB CG",
    "S": "N CA CB",
    "T": "N CA CB",
    "W": "N CA CB CG",
    "Y": "N CA CB CG",
    "V": "N CA CB",
}


def _atom(text: str) -> Atom:
    name, group, x, y, z = text.split()
    return Atom(name, int(group), (float(x), float(y), float(z)))


THREE_LETTERS = {letter: name for letter, (name, _) in _TABLE.items()}
ONE_LETTER = {name: letter for letter, name in THREE_LETTERS.items()}
ATOMS = {letter: tuple(map(_atom, text.split("; "))) for letter, (_, text) in _TABLE.items()}


def chi_axes(letter: str) -> list[tuple[str, str, str]]:
    """Return, for every chi of a residue, the three atoms in front of the one that the angle places."""
    names = _SIDE_CHAINS.get(letter, "").split()
    return list(zip(names, names[1:], names[2:], strict=False))
