"""Structure files as arrays of atoms, one for each chain: PDB and mmCIF, plain or gzipped, read by `biotite`.

Every fault of a file becomes a ValueError of one sentence without the file's name: `index` puts it in front.
"""

import gzip
import io
import warnings
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.files import something_else
from lorta.embedded.amino_acids import ONE_LETTER

Atoms = Any  # a `biotite` AtomArray: its annotations are made at run time, without types
PDB_ENDINGS, CIF_ENDINGS = (".pdb", ".ent"), (".cif", ".mmcif")
END_MARKS = ("TER", "END", "MASTER", "CONECT")  # what a complete PDB file has behind its last atom
COORDINATES_END = 54  # columns of an ATOM record up to z
UNKNOWN = "X"
ONE_LOCATION = ("", " ", ".", "?")  # how the formats say that an atom has no other


class Structure(NamedTuple):
    """What one file holds: chains by their author's name, in the file's order."""

    chains: dict[str, Atoms]  # first model, one location a residue; water, ligands and all still there
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
        if sentence := something_else(file.name, data):
            raise ValueError(f"{sentence}.")
        return (gzip.decompress(data) if file.name.lower().endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text.") from error
    except (OSError, EOFError, zlib.error) as error:  # gzip's faults are OSError too
        raise ValueError(f"it cannot be read ({_said(error)}).") from error


def _read_pdb(text: str) -> Structure:
    from biotite.structure.io.pdb import PDBFile

    lines = text.splitlines()
    atoms = [number for number, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]
    if not atoms:
        raise ValueError("there is no ATOM record")
    for number in atoms:
        if len(lines[number].rstrip()) < COORDINATES_END:
            raise ValueError(f"the atom of line {number + 1} is cut short")
        lines[number] = _filled(lines[number])
    file = PDBFile.read(io.StringIO("\n".join(lines)))
    array = file.get_structure(model=1, altloc="all", extra_fields=["occupancy"])
    complete = any(line.startswith(END_MARKS) for line in lines[atoms[-1] + 1 :])
    return _structure(array, file.get_model_count(), _seqres(lines), complete)


def _filled(line: str) -> str:
    """Return an ATOM record with the occupancy and the B-factor that some programs leave out."""
    return f"{line[:54]}{line[54:60].strip() or '1.00':>6}{line[60:66].strip() or '0.00':>6}{line[66:]}"


def _seqres(lines: list[str]) -> dict[str, str]:
    sequences: dict[str, str] = {}
    for line in lines:
        if line.startswith("SEQRES"):
            letters = "".join(letter_of(name) for name in line[19:70].split())
            sequences[line[11].strip()] = sequences.get(line[11].strip(), "") + letters
    return sequences


def _read_cif(text: str) -> Structure:
    from biotite.structure.io.pdbx import CIFFile, get_model_count, get_sequence, get_structure

    file = CIFFile.read(io.StringIO(text))
    columns = file.block["atom_site"]
    fields, altloc = ["occupancy"] * ("occupancy" in columns), "all" if "label_alt_id" in columns else "first"
    array = get_structure(file, model=1, altloc=altloc, extra_fields=fields)
    for name, value in (("altloc_id", ""), ("occupancy", 1.0)):
        if name not in array.get_annotation_categories():
            array.set_annotation(name, np.full(array.array_length(), value))
    try:
        declared = {chain: str(sequence) for chain, sequence in get_sequence(file).items()}
    except (KeyError, ValueError):  # no entity_poly, as in files that programs write
        declared = {}
    return _structure(array, get_model_count(file), declared, text.rstrip().endswith("#"))


def _structure(array: Atoms, models: int, declared: dict[str, str], complete: bool) -> Structure:
    remarks = [f"There are {models} models; the first is used."] if models > 1 else []
    chains: dict[str, Atoms] = {}
    several = 0
    for name in dict.fromkeys(array.chain_id.tolist()):
        chain = array[array.chain_id == name]
        chosen, more = _one_location_each(chain)
        chains[name], several = chain[chosen], several + more
    if several:
        remarks.append(f"Alternate locations in {several} residues: the one of highest occupancy is used.")
    return Structure(chains, declared, complete, tuple(remarks))


def _one_location_each(chain: Atoms) -> tuple[np.ndarray, int]:
    """Return which atoms to keep, (atoms,) bool, and how many residues are in several locations, or of several kinds.

    Of each residue the location of highest mean occupancy is kept, the first of equals, with the atoms that have only
    one. (`biotite`'s filter takes sums, drops locations that are digits, and does not choose between kinds.)
    """
    changes = (chain.res_id[1:] != chain.res_id[:-1]) | (chain.ins_code[1:] != chain.ins_code[:-1])
    starts = [0, *(np.flatnonzero(changes) + 1).tolist(), chain.array_length()]
    kept, several = np.ones(chain.array_length(), dtype=bool), 0
    for start, end in pairwise(starts):
        inside = slice(start, end)
        for labels, fixed in ((chain.altloc_id[inside], ONE_LOCATION), (chain.res_name[inside], ())):
            moving = kept[inside] & ~np.isin(labels, fixed)
            names = list(dict.fromkeys(labels[moving].tolist()))
            if len(names) > 1:
                means = [chain.occupancy[inside][moving & (labels == name)].mean() for name in names]
                kept[inside] &= ~moving | (labels == names[int(np.argmax(means))])
                several += 1
    return kept, several
