"""From the atoms of a chain to a target: which residues belong to it, what letter each has, and where some are missing.

Residues that the experiment did not see stay in the sequence, without atoms, where the file says what they are (SEQRES,
entity_poly) or how many (residue numbers); those beyond the ends are left out.
"""

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from experiments.folding.structures import UNKNOWN, Atoms, letter_of
from experiments.folding.superposition import FEWEST_RESIDUES
from experiments.folding.target import WIDEST, Target
from lorta.embedded.amino_acids import ATOM_ORDER, ATOMS, ONE_LETTER

PEPTIDE_BOND = 2.0  # angstrom; C to N is 1.33, no contact that is no bond comes under 2.5
BONDED_CA = (2.8, 4.5)  # angstrom; cis 2.9, trans 3.8
RENAMED = {("MSE", "SE"): "SD"}  # selenium where methionine has its sulphur
UNKNOWN_ATOMS = ("N", "CA", "C", "O", "CB")


class Residue(NamedTuple):
    """One observed residue."""

    number: int
    name: str
    letter: str
    atoms: dict[str, np.ndarray]  # name -> (3,), angstrom


def to_target(name: str, atoms: Atoms, declared: str | None, complete: bool, longest: int) -> tuple[Target, list[str]]:
    """Return the target of one chain and a sentence for each thing that was decided on the way.

    `declared` is its full sequence, if known; `complete` says whether the file has an end mark. Raises ValueError, one
    sentence, for a chain that is no target: no residue, no CA, more than `longest` residues, coordinates that are no
    numbers or no chain, or an end that is missing.
    """
    residues, remarks = _residues(atoms)
    if not residues:
        raise ValueError("it has no amino acids.")
    _check(residues, longest)
    gaps, rest = _gaps(residues, declared, remarks)
    if rest and not complete:
        raise ValueError(f"the file has no end mark and its last {rest} residues are missing: it was cut short.")
    if not complete:
        remarks.append("The file has no end mark; it may have been cut short.")
    target = _target(name, residues, gaps)
    if len(target.sequence) > longest:
        raise ValueError(_too_long(len(target.sequence), longest))
    return target, remarks


def _too_long(length: int, longest: int) -> str:
    return f"it has {length} residues, more than the {longest} that are allowed."


def _residues(atoms: Atoms) -> tuple[list[Residue], list[str]]:
    """Return the amino acids that are bonded into the chain, in the file's order."""
    from biotite.structure import filter_amino_acids, get_residue_starts

    atoms = atoms[filter_amino_acids(atoms) | (atoms.res_name == "UNK")]
    starts = [*get_residue_starts(atoms).tolist(), atoms.array_length()]
    parts = [atoms[start:end] for start, end in pairwise(starts)]
    residues = [_residue(part) for part in parts]
    inside = [not part.hetero[0] or _is_bonded(residues, place) for place, part in enumerate(parts)]
    kept = [residue for residue, bonded in zip(residues, inside, strict=True) if bonded]
    changed = [f"{one.name} {one.number} as {one.letter}" for one in kept if one.name not in ONE_LETTER]
    return kept, [f"Residues read as others: {', '.join(changed)}."] if changed else []


def _residue(part: Atoms) -> Residue:
    name = str(part.res_name[0])
    letter = letter_of(name)
    own = {atom.name for atom in ATOMS[letter]} if letter != UNKNOWN else set(UNKNOWN_ATOMS)
    names = [RENAMED.get((name, str(atom)), str(atom)) for atom in part.atom_name]
    atoms = {atom: point for atom, point in zip(names, part.coord, strict=True) if atom in own or atom == "OXT"}
    return Residue(int(part.res_id[0]), name, letter, atoms)


def _apart(one: Residue, atom: str, two: Residue, other: str) -> float:
    """Return the distance of two atoms, angstrom; infinity where one is missing."""
    if atom not in one.atoms or other not in two.atoms:
        return float("inf")
    return float(np.linalg.norm(one.atoms[atom] - two.atoms[other]))


def _bonded(one: Residue, two: Residue) -> bool:
    known = "C" in one.atoms and "N" in two.atoms
    return _apart(one, "C", two, "N") < PEPTIDE_BOND if known else _apart(one, "CA", two, "CA") < BONDED_CA[1]


def _is_bonded(residues: list[Residue], place: int) -> bool:
    before, after = residues[max(place - 1, 0) : place], residues[place + 1 : place + 2]
    return any(_bonded(one, residues[place]) for one in before) or any(_bonded(residues[place], one) for one in after)


def _check(residues: list[Residue], longest: int) -> None:
    """Raise ValueError for residues that make no target."""
    if len(residues) > longest:
        raise ValueError(_too_long(len(residues), longest))
    alphas = [one for one in residues if "CA" in one.atoms]
    if len(alphas) < FEWEST_RESIDUES:
        raise ValueError(f"{len(alphas)} of its {len(residues)} residues have a CA atom; {FEWEST_RESIDUES} are needed.")
    points = np.array([point for one in residues for point in one.atoms.values()])
    if bad := int((~np.isfinite(points)).any(axis=1).sum()):
        raise ValueError(f"{bad} atoms have coordinates that are no numbers.")
    if (spread := float(np.ptp(points, axis=0).max())) > WIDEST:
        raise ValueError(f"its atoms are spread over {spread:.0f} angstrom, more than {WIDEST:.0f}.")
    steps = [_apart(one, "CA", two, "CA") for one, two in pairwise(alphas)]
    near = sum(BONDED_CA[0] < step < BONDED_CA[1] for step in steps)
    if 2 * near < len(steps):
        raise ValueError(f"{near} of its {len(steps)} steps from CA to CA are as long as a residue: this is no chain.")


def _gaps(residues: list[Residue], declared: str | None, remarks: list[str]) -> tuple[list[str], int]:
    """Return the unobserved letters behind each residue, and how many are missing behind the last one."""
    breaks = [not _bonded(one, two) for one, two in pairwise(residues)]
    counts = [max(two.number - one.number - 1, 0) * broken for (one, two), broken in zip(pairwise(residues), breaks)]  # noqa: B905
    gaps, rest = [UNKNOWN * count for count in counts], 0
    if declared:
        known = "".join(letter if letter in ATOMS else UNKNOWN for letter in declared.upper())
        if placed := _place(residues, breaks, counts, known):
            gaps, rest = placed
        else:
            remarks.append("The declared sequence does not contain the observed residues; it is not used.")
    filled = sum(map(len, gaps))
    if filled:
        remarks.append(f"{filled} residues inside the chain have no coordinates.")
    if unexplained := sum(broken and not gap for broken, gap in zip(breaks, gaps, strict=True)):
        remarks.append(f"The chain has {unexplained} breaks where no residue is missing.")
    return gaps, rest


def _place(
    residues: list[Residue], breaks: list[bool], counts: list[int], declared: str
) -> tuple[list[str], int] | None:
    """Return gaps and missing end by finding the pieces in the declared sequence: as numbered, else anywhere."""
    letters = [re.escape(one.letter) if one.letter != UNKNOWN else "." for one in residues]
    pieces, wide = [letters[0]], ""
    for letter, broken, count in zip(letters[1:], breaks, counts, strict=True):
        wide += f"{pieces[-1]}(.{{{count}}})" if broken else ""
        pieces = [*pieces, letter] if broken else [*pieces[:-1], pieces[-1] + letter]
    if match := re.search(wide + pieces[-1], declared):
        between, end = list(match.groups()), match.end()
    else:
        between, end = _pieces_in_order(pieces, declared)
    inside = iter(between)
    return ([next(inside) if broken else "" for broken in breaks], len(declared) - end) if end else None


def _pieces_in_order(pieces: list[str], declared: str) -> tuple[list[str], int]:
    """Return what lies between the pieces, each at its first place behind the one before, and the end; 0 if none."""
    between: list[str] = []
    end = 0
    for piece in pieces:
        match = re.compile(piece).search(declared, end)
        if match is None:
            return [], 0
        between.append(declared[end : match.start()])
        end = match.end()
    return between[1:], end


def _target(name: str, residues: list[Residue], gaps: list[str]) -> Target:
    sequence = "".join(one.letter + gap for one, gap in zip(residues, [*gaps, ""], strict=True))
    positions = np.zeros((len(sequence), len(ATOM_ORDER), 3), dtype=np.float32)
    mask = np.zeros(positions.shape[:2], dtype=bool)
    place = 0
    for one, gap in zip(residues, [*gaps, ""], strict=True):
        for atom, point in one.atoms.items():
            positions[place, ATOM_ORDER[atom]], mask[place, ATOM_ORDER[atom]] = point, True
        place += 1 + len(gap)
    return Target(name, sequence, positions, mask)
