"""Toy folds: short chains whose structure follows from their sequence by a rule that a small model can learn.

A chain is helices and strands with turns between them. The rule: each residue takes the state (helix, strand, turn)
whose propensity, averaged over the five residues around it, is highest (Chou and Fasman 1978, table I: P(a), P(b) and
P(turn)); the state, and in turns the residue, sets phi and psi; side chains take one rotamer a state. There are two
families. The second, to be adapted to, exchanges the roles of some residues: same states, same angles, other words
for them, so what a model knows of geometry stays true while its reading of the sequence is wrong. Own design; numpy
only. They are no proteins: there is no energy in them, and no homology between them.
"""

import hashlib
import math
from functools import cache
from random import Random

import numpy as np

from lorta.embedded.chain_geometry import build_chain

FOLDS_REVISION = "1"  # raised whenever a row changes
Fold = tuple[str, str, np.ndarray, np.ndarray]  # name, sequence, positions (L, 37, 3) float32, mask (L, 37) bool
SIZES = {"pretraining": 3000, "train": 160, "validation": 40}
SHIFTED = frozenset({"train", "validation"})  # the splits of the second family
LENGTHS = (16, 32)
STATES = "HET"  # helix, strand, turn
PROPENSITIES = {  # Chou and Fasman 1978, Annual Review of Biochemistry 47, table I: P(a), P(b), P(turn)
    "E": (1.51, 0.37, 0.74),
    "M": (1.45, 1.05, 0.60),
    "A": (1.42, 0.83, 0.66),
    "L": (1.21, 1.30, 0.59),
    "K": (1.16, 0.74, 1.01),
    "F": (1.13, 1.38, 0.60),
    "Q": (1.11, 1.10, 0.98),
    "W": (1.08, 1.37, 0.96),
    "I": (1.08, 1.60, 0.47),
    "V": (1.06, 1.70, 0.50),
    "D": (1.01, 0.54, 1.46),
    "H": (1.00, 0.87, 0.95),
    "R": (0.98, 0.93, 0.95),
    "T": (0.83, 1.19, 0.96),
    "S": (0.77, 0.75, 1.43),
    "C": (0.70, 1.19, 1.19),
    "Y": (0.69, 1.47, 1.14),
    "N": (0.67, 0.89, 1.56),
    "P": (0.57, 0.55, 1.52),
    "G": (0.57, 0.75, 1.56),
}
MEMBERS = {"H": "EMALKQHR", "E": "VIYFWTC", "T": "NGPDS"}  # what a segment is written with
EXCHANGED = {"A": "V", "E": "I", "L": "Y", "G": "D"}  # the second family: each takes the other's role
ROLES = {letter: letter for letter in PROPENSITIES} | EXCHANGED | {two: one for one, two in EXCHANGED.items()}
SEGMENTS = {"H": (6, 9), "E": (4, 6), "T": (3, 4)}  # residues
# Phi and psi, degrees, as textbooks have them. Strand: the mean of the parallel (-119, 113) and the antiparallel sheet
# (-139, 135). Turns: left-handed helix, second residue of a type I turn, polyproline II.
ANGLES = {"H": (-57.8, -47.0), "E": (-129.0, 124.0)}
TURN_ANGLES = {"G": (57.0, 47.0), "N": (57.0, 47.0), "D": (-90.0, 0.0), "S": (-90.0, 0.0), "P": (-75.0, 145.0)}
OTHER_TURN = (-90.0, 0.0)
ROTAMERS = {"H": (-65.0, 180.0, 180.0, 180.0), "E": (180.0, 180.0, 180.0, 180.0)}  # Lovell et al. 2000: m and t
NEAREST_CA = 4.5  # angstrom, between residues three or more apart
FINGERPRINTS = {
    "pretraining": "af9a86ac2429013c1c4869445ce243703a410130d3187f63e80d75e79ff4dfad",
    "train": "28a331cbfcc47719eea39fc1e7b98683ef48357e5df1a0d7042590d190d79bc4",
    "validation": "fa7ba107d674673eb7622e00fba2ddef97600f21de604d7d021078862fe204d8",
}


def roles(sequence: str, shifted: bool) -> str:
    """Return the sequence in the letters of the first family: what it says, whoever wrote it."""
    return "".join(ROLES[letter] for letter in sequence) if shifted else sequence


def states(sequence: str, shifted: bool) -> str:
    """Return one of H, E, T for each residue: the highest propensity, averaged over two residues to either side."""
    table = np.array([PROPENSITIES[letter] for letter in roles(sequence, shifted)])
    windows = (table[max(0, place - 2) : place + 3].mean(axis=0) for place in range(len(sequence)))
    return "".join(STATES[int(window.argmax())] for window in windows)


def fold(sequence: str, shifted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (L, 37, 3) float32, angstrom to the thousandth, and mask (L, 37) of a sequence in a family.

    Raises KeyError for a letter that is none of the twenty amino acids.
    """
    said, state = roles(sequence, shifted), states(sequence, shifted)
    angles = [
        TURN_ANGLES.get(letter, OTHER_TURN) if kind == "T" else ANGLES[kind]
        for letter, kind in zip(said, state, strict=True)
    ]
    phi, psi = np.radians(np.array(angles)).T
    chi = [[math.radians(angle) for angle in ROTAMERS.get(kind, ROTAMERS["H"])] for kind in state]
    positions, mask = build_chain(sequence, phi.tolist(), psi.tolist(), chi)
    positions = np.where(mask[..., None], positions - positions[:, 1].mean(axis=0), 0.0)
    return positions.round(3).astype(np.float32), mask


def draw_sequence(random: Random, shifted: bool) -> str:
    """Draw a sequence: helices or strands with turns between, in the family's letters."""
    length = random.randint(*LENGTHS)
    letters: list[str] = []
    kind = random.choice("HE")
    while len(letters) < length:
        weights = [PROPENSITIES[letter][STATES.index(kind)] for letter in MEMBERS[kind]]
        letters += random.choices(MEMBERS[kind], weights, k=random.randint(*SEGMENTS[kind]))
        kind = random.choice("HE") if kind == "T" else "T"
    return roles("".join(letters[:length]), shifted)  # exchanging roles twice is doing nothing


def _clashes(positions: np.ndarray) -> bool:
    alphas = positions[:, 1]
    distances = np.linalg.norm(alphas[:, None] - alphas[None], axis=-1)
    return bool((distances[np.triu_indices(len(alphas), 3)] < NEAREST_CA).any())


@cache
def _family(shifted: bool) -> dict[str, tuple[Fold, ...]]:
    """Draw all splits of a family; no sequence occurs twice."""
    random, seen, splits = Random(f"folds {shifted} {FOLDS_REVISION}"), set[str](), dict[str, tuple[Fold, ...]]()
    for split in (name for name in SIZES if (name in SHIFTED) == shifted):
        rows: list[Fold] = []
        while len(rows) < SIZES[split]:
            sequence = draw_sequence(random, shifted)
            positions, mask = fold(sequence, shifted)
            if sequence not in seen and not _clashes(positions):
                seen.add(sequence)
                rows.append((f"{split}_{len(rows):04d}", sequence, positions, mask))
        splits[split] = tuple(rows)
    return splits


def _check(split: str) -> None:
    if split not in SIZES:
        raise ValueError(f"The embedded folds have no split {split!r}; choose one of {', '.join(SIZES)}.")


def fold_rows(split: str) -> list[Fold]:
    """Return (name, sequence, positions, mask) of every chain of "pretraining", "train" or "validation".

    positions: (L, 37, 3) float32, angstrom, 0 where missing; mask: (L, 37) bool; atom37 order. The caller owns the
    arrays. Raises ValueError for another split.
    """
    _check(split)
    return [
        (name, sequence, positions.copy(), mask.copy())
        for name, sequence, positions, mask in _family(split in SHIFTED)[split]
    ]


def folds_fingerprint(rows: list[Fold]) -> str:
    """Return the SHA-256 (hex) of names, sequences and coordinates in whole thousandths of an angstrom."""
    digest = hashlib.sha256()
    for name, sequence, positions, mask in rows:
        digest.update(f"{name} {sequence}\n".encode())
        digest.update(np.rint(positions[mask].astype(np.float64) * 1000).astype("<i8").tobytes())
    return digest.hexdigest()
