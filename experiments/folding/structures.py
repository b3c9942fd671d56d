"""Structure files as arrays of atoms, one for each chain: PDB and mmCIF, plain or gzipped, read by `biotite`.

Every fault of a file becomes a ValueError of one sentence without the file's name: `index` puts it in front.
"""

import gzip
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lorta.embedded.amino_acids import ONE_LETTER

if TYPE_CHECKING:
    from biotite.structure import AtomArray

PDB_ENDINGS, CIF_ENDINGS = (".pdb", ".ent"), (".cif", ".mmcif")
END_MARKS = ("TER", "END", "MASTER", "CONECT")  # what a complete PDB file has behind its last atom
COORDINATES_END = 54  # columns of an ATOM record up to z
UNKNOWN = "X"


class Structure(NamedTuple):
    """What one file holds: chains by their author's name, in the file's order."""

    chains: dict[str, "AtomArray"]  # first model, one alternate location a residue; water, ligands and all still there
    declared: dict[str, str]  # the full sequence, unobserved residues included, of chains for which the file has one
    complete: bool  # whether the file ends as a complete one does
    remarks: tuple[str, ...]  # one sentence for each thing that was decided


def is_structure(file: Path) -> bool:
    """Return whether a file's name ends like one that `read_structure` can read."""
    return _ending(file) in PDB_ENDINGS + CIF_ENDINGS


def read_structure(file: Path) -> Structure:
    """Return all chains of a PDB or mmCIF file. Raises ValueError for what cannot be read as one."""
    text = _text(file)
    kind = "mmCIF" if _ending(file) in CIF_ENDINGS else "PDB"
    if not text.strip():
        raise ValueError("the file is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # elements guessed from names, boxes left out: neither is read here
            return _read_cif(text) if kind == "mmCIF" else _read_pdb(text)
    except ValueError as error:
        raise ValueError(f"it cannot be read as {kind} ({_said(error)}).") from error
    except Exception as error:  # a parser that meets a broken file fails in any way there is
        raise ValueError(f"it cannot be read as {kind} ({type(error).__name__}: {_said(error)}).") from error


def letter_of(residue: str) -> str:
    """Return the one-letter code of a residue name, of the parent for a modified one, X where there is none."""
    if residue in ONE_LETTER:
        return ONE_LETTER[residue]
    from biotite.structure.info import one_letter_code

    letter = one_letter_code(residue)
    return letter if letter in set(ONE_LETTER.values()) else UNKNOWN


def _said(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _ending(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.name.lower().endswith(".gz") else data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text.") from error
    except (OSError, EOFError) as error:  # gzip's faults are OSError too
        raise ValueError(f"it cannot be read ({_said(error)}).") from error


def _read_pdb(text: str) -> Structure:
    from biotite.structure.io.pdb import PDBFile

    lines = text.splitlines()
    atoms = [number for number, line in enumerate(lines, 1) if line.startswith(("ATOM", "HETATM"))]
    if not atoms:
        raise ValueError("there is no ATOM record")
    for number in atoms:
        if len(lines[number - 1].rstrip()) < COORDINATES_END:
            raise ValueError(f"the atom of line {number} is cut short")
    file = PDBFile.read(io.StringIO(text))
    array = file.get_structure(model=1, altloc="all", extra_fields=["occupancy"])
    complete = any(line.startswith(END_MARKS) for line in lines[atoms[-1] :])
    return _structure(array, file.get_model_count(), _seqres(lines), complete)


def _seqres(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith("SEQRES"):
            letters = "".join(letter_of(name) for name in line[19:70].split())
            found[line[11].strip()] = found.get(line[11].strip(), "") + letters
    return found


def _read_cif(text: str) -> Structure:
    from biotite.structure.io.pdbx import CIFFile, get_model_count, get_sequence, get_structure

    file = CIFFile.read(io.StringIO(text))
    array = get_structure(file, model=1, altloc="all", extra_fields=["occupancy"])
    array.set_annotation("altloc_id", array.label_alt_id)
    try:
        declared = {chain: str(sequence) for chain, sequence in get_sequence(file).items()}
    except (KeyError, ValueError):  # no entity_poly, as in files that programs write
        declared = {}
    return _structure(array, get_model_count(file), declared, text.rstrip().endswith("#"))


def _structure(array: "AtomArray", models: int, declared: dict[str, str], complete: bool) -> Structure:
    from biotite.structure import filter_highest_occupancy_altloc

    remarks = [f"There are {models} models; the first is used."] if models > 1 else []
    kept = array[filter_highest_occupancy_altloc(array, array.altloc_id, array.occupancy)]
    if places := len({(atom.chain_id, atom.res_id, atom.ins_code) for atom in array[~np.isin(array.altloc_id, _ONE)]}):
        remarks.append(f"Alternate locations in {places} residues: the one of highest occupancy is used.")
    chains = {name: kept[kept.chain_id == name] for name in dict.fromkeys(kept.chain_id.tolist())}
    return Structure(chains, declared, complete, tuple(remarks))


_ONE = ("", " ", ".", "?")  # how the formats say that an atom has one location only
