"""Training and validation targets without relatives across: clusters of like sequences go to one side as a whole.

Two sequences are alike when their best alignment (global, ends free; BLOSUM62, a gap costs 10, each further residue of
it 1) has identical residues on at least `threshold` of the shorter one. Clusters are what is linked, directly or
through others. Below 30 % alignments tell relatives from strangers badly (Rost 1999, doi:10.1093/protein/12.2.85):
closer pairs are kept together, more distant relatives can be apart. Every pair is aligned, 2 ms for two chains of a
hundred residues; an index with a column `split` spares it.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from experiments.folding.index import Planned
from experiments.folding.target import Target

GAP = (-10, -1)  # opening and lengthening


class Split(NamedTuple):
    """Both sides, in the order of the targets, and the number of the cluster of each name."""

    train: tuple[Target, ...]
    validation: tuple[Target, ...]
    clusters: dict[str, int]  # empty for a split that the index gives


def split_targets(planned: Planned, threshold: float, share: float) -> Split:
    """Return the split that the index gives, or whole clusters, about `share` of all targets for validation.

    `threshold` and `share` are fractions. Which side a target is on does not depend on their order. Raises ValueError
    where one side would be empty.
    """
    targets = planned.targets
    if planned.split is not None:
        inside, numbers = {place for place, side in enumerate(planned.split) if side == "validation"}, {}
    else:
        members = clusters(tuple(target.sequence for target in targets), threshold)
        inside = _choose(members, [target.sequence for target in targets], share)
        numbers = {targets[place].name: number for number, places in enumerate(members) for place in places}
    train, validation = (tuple(targets[place] for place in side) for side in _sides(len(targets), inside))
    if not (train and validation):
        empty = "validation" if train else "training"
        raise ValueError(
            f"protein: no target is left for {empty}: the {len(targets)} targets are {len(set(numbers.values()))} "
            f"clusters at an identity of {threshold:.0%}; add structures, or a column `split` to the index."
        )
    return Split(train, validation, numbers)


def fingerprints(planned: Planned, threshold: float, share: float) -> dict[str, str]:
    """Return what fixes both sides, train and evaluation: SHA-256 (hex) over all targets and how they are split.

    Targets count in their order, coordinates in whole thousandths of an angstrom. No sequence is aligned.
    """
    digest = hashlib.sha256(f"{threshold} {share} {planned.split}\n".encode())
    for name, sequence, positions, mask in planned.targets:
        digest.update(f"{name} {sequence}\n".encode())
        digest.update(np.packbits(mask).tobytes())
        digest.update(np.rint(positions[mask].astype(np.float64) * 1000).astype("<i8").tobytes())
    return {use: f"{digest.hexdigest()}/{use}" for use in ("train", "evaluation")}


@lru_cache(maxsize=4)  # all runs of a sweep ask for the same
def clusters(sequences: tuple[str, ...], threshold: float) -> tuple[tuple[int, ...], ...]:
    """Return the places of the sequences of each cluster (single linkage), by first place."""
    group = list(range(len(sequences)))
    for one, two in combinations(range(len(sequences)), 2):
        if group[one] != group[two] and identity(sequences[one], sequences[two]) >= threshold:
            old, new = max(group[one], group[two]), min(group[one], group[two])
            group = [new if number == old else number for number in group]
    return tuple(
        tuple(place for place, number in enumerate(group) if number == first) for first in dict.fromkeys(group)
    )


def identity(one: str, two: str) -> float:
    """Return identical residues of the best alignment over the length of the shorter sequence, 0 to 1."""
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import (
        SubstitutionMatrix,
        align_optimal,  # pyright: ignore[reportAttributeAccessIssue]  # compiled
        get_sequence_identity,
    )

    matrix = SubstitutionMatrix.std_protein_matrix()
    pair = (ProteinSequence(text) for text in sorted((one, two)))  # the same alignment in either order
    alignments = align_optimal(*pair, matrix, gap_penalty=GAP, terminal_penalty=False, max_number=1)
    return float(get_sequence_identity(alignments[0], mode="shortest"))


def _sides(count: int, inside: set[int]) -> tuple[list[int], list[int]]:
    return [place for place in range(count) if place not in inside], sorted(inside)


def _choose(members: Sequence[Sequence[int]], sequences: Sequence[str], share: float) -> set[int]:
    """Return the places for validation: clusters in the order of a hash of their sequences, as long as they fit."""
    wanted = max(1, round(share * len(sequences)))

    def order(places: Sequence[int]) -> str:
        return hashlib.sha256(min(sequences[place] for place in places).encode()).hexdigest()

    chosen: set[int] = set()
    for places in sorted(members, key=order):
        if len(chosen) + len(places) <= wanted:
            chosen.update(places)
    return chosen or set(min(members, key=lambda places: (len(places), order(places))))
