"""One protein chain with known coordinates: what every source of structures gives and the folding task reads."""

from typing import NamedTuple

import numpy as np

WIDEST = 3000.0  # angstrom; far beyond any folded chain, and where `biotite`'s grid for lDDT still fits in memory


class Target(NamedTuple):
    """One chain of L residues, in AlphaFold's atom37 order (`lorta.embedded.amino_acids.ATOM_TYPES`)."""

    name: str  # unique within a data set, such as "1ubq_A"
    sequence: str  # one letter a residue, X for one that is unknown; length L
    positions: np.ndarray  # (L, 37, 3) float32, angstrom, 0 where an atom is missing
    mask: np.ndarray  # (L, 37) bool, True where an atom is present
