"""Small structure files, sound and broken, made from a toy fold."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from experiments.folding.writing import write_structure
from lorta.embedded import folds

SEQUENCE = "EMALKQEMALKQGNGVIYVTVIYGNGEMALKQE"
POSITIONS, MASK = folds.fold(SEQUENCE, shifted=False)


def write_pdb(file: Path, change: Callable[[list[str]], Iterable[str]] = list, chain: str = "A") -> Path:
    """Write the fold as a PDB file whose lines were changed; return the file."""
    write_structure(file, SEQUENCE, POSITIONS, MASK, np.full(len(SEQUENCE), 50.0), chain)
    file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))
    return file


def residue(line: str) -> int:
    """The residue number of an ATOM record, 0 for another line."""
    return int(line[22:26]) if line.startswith(("ATOM", "HETATM")) else 0


def write_cif(file: Path, pdb: Path) -> Path:
    """Write a PDB file's chains as mmCIF."""
    from biotite.structure.io.pdb import PDBFile
    from biotite.structure.io.pdbx import CIFFile, set_structure

    made = CIFFile()
    set_structure(made, PDBFile.read(str(pdb)).get_structure(model=1))
    made.write(str(file))
    return file
