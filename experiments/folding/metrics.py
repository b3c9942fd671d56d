"""How near a predicted chain is to the known one, from the CA atoms of the residues that the known one has.

| score   | definition                                                                  | scale, best |
|---------|-----------------------------------------------------------------------------|-------------|
| lddt_ca | Mariani et al. 2013, doi:10.1093/bioinformatics/btt473: pairs within 15 A,  | 0 to 1, 1   |
|         | thresholds 0.5, 1, 2, 4 A; CA only, no stereochemistry check (`biotite`)    |             |
| tm      | Zhang and Skolnick 2004, doi:10.1002/prot.20264, residue i on residue i     | 0 to 1, 1   |
| gdt_ts  | Zemla 2003, doi:10.1093/nar/gkg571: thresholds 1, 2, 4, 8 A                 | 0 to 1, 1   |
| rmsd_ca | after the best superposition of all residues (`biotite`)                    | A, 0        |

lDDT compares distances, so it cannot tell a fold from its mirror image; the other three can. The superpositions of
tm and gdt_ts are searched for (`superposition`), so both are lower bounds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.folding.superposition import FEWEST_RESIDUES, distances
from experiments.folding.target import WIDEST
from lorta.records.sections import Score

METRICS = ("lddt_ca", "tm", "gdt_ts", "rmsd_ca")  # the first is the one that tables show
GDT_TS = (1.0, 2.0, 4.0, 8.0)  # angstrom
TM_D0_LEAST = 0.5  # angstrom; of the TM-score program, where the formula has no value or a smaller one


def chain_scores(reference: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return every score of `METRICS` for CA coordinates (L, 3), angstrom; NaN rows of `reference` are not compared.

    Raises ValueError for shapes that differ, fewer than three residues to compare, a reference wider than `WIDEST`, or
    a predicted value not finite.
    """
    known, made = _compared(reference, predicted)
    return {"lddt_ca": lddt_ca(reference, predicted), **_superposed_scores(known, made), "rmsd_ca": _rmsd(known, made)}


def lddt_ca(reference: np.ndarray, predicted: np.ndarray) -> float:
    """Return lDDT over all CA pairs, 0 to 1. Raises ValueError as `chain_scores` does, and where no pair is in reach.

    `reference` and `predicted` are (L, 3), angstrom; residues whose reference is NaN are left out.
    """
    from biotite.structure import lddt

    known, made = _compared(reference, predicted)
    value = float(lddt(_alphas(known), made))
    if not math.isfinite(value):
        raise ValueError("lddt_ca: no two residues are within 15 angstrom.")
    return value


def lddt_per_residue(reference: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return lDDT of each residue's own CA pairs, (L,), 0 to 1; NaN where the reference is missing or has no pair."""
    from biotite.structure import lddt

    known, made = _compared(reference, predicted)
    values = np.full(len(reference), np.nan)
    values[_present(reference)] = lddt(_alphas(known), made, aggregation="residue")
    return values


def tm_d0(length: int) -> float:
    """Return the TM-score's distance scale for a chain of `length` residues, angstrom (equation 5 of the paper)."""
    return max(1.24 * (length - 15) ** (1 / 3) - 1.8, TM_D0_LEAST) if length > 15 else TM_D0_LEAST


def score(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    """Return the mean over targets of every metric in rows of `writing.prediction_row`. Pure.

    A row that cannot be scored makes the mean a Score without a value that names it: no target is dropped in silence.
    """
    if not predictions:
        return {name: Score(value=None, n=0, reason="no targets were scored") for name in METRICS}
    of_targets: list[dict[str, float]] = []
    for row in predictions:
        try:
            of_targets.append(row_scores(row))
        except ValueError as error:
            reason = f"{row['name']}: {error}"
            return {name: Score(value=None, n=len(predictions), reason=reason) for name in METRICS}
    return {name: Score(value=float(np.mean([row[name] for row in of_targets])), n=len(of_targets)) for name in METRICS}


def row_scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of one row of predictions, from its coordinates. Raises ValueError as `chain_scores` does."""
    return chain_scores(coordinates(row["reference_ca"]), coordinates(row["predicted_ca"]))


def coordinates(points: Sequence[Sequence[float] | None]) -> np.ndarray:
    """Return points of a row as (L, 3) float64, NaN where a point is None."""
    return np.array([point or [math.nan] * 3 for point in points], dtype=np.float64).reshape(-1, 3)


def _present(reference: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(reference).all(axis=1))


def _compared(reference: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if reference.shape != predicted.shape:
        raise ValueError(f"reference and prediction must have one shape, got {reference.shape} and {predicted.shape}.")
    present = _present(reference)
    known, made = (chain[present].astype(np.float64) for chain in (reference, predicted))
    if len(known) < FEWEST_RESIDUES:
        raise ValueError(f"a comparison needs {FEWEST_RESIDUES} residues with a CA atom, got {len(known)}.")
    if (spread := float(np.ptp(known, axis=0).max())) > WIDEST:
        raise ValueError(f"the reference is spread over {spread:.0f} angstrom, more than {WIDEST:.0f}.")
    if bad := int((~np.isfinite(made)).any(axis=1).sum()):
        raise ValueError(f"{bad} of {len(made)} predicted CA atoms are NaN or infinite.")
    return known - known.mean(axis=0), made - made.mean(axis=0)  # biotite computes in float32


def _alphas(points: np.ndarray) -> Any:
    from biotite.structure import AtomArray

    chain: Any = AtomArray(len(points))
    chain.coord, chain.res_id = points, np.arange(1, len(points) + 1)
    chain.atom_name[:], chain.element[:], chain.res_name[:], chain.chain_id[:] = "CA", "C", "ALA", "A"
    return chain


def _superposed_scores(known: np.ndarray, made: np.ndarray) -> dict[str, float]:
    scale, best_tm, most = tm_d0(len(known)), 0.0, np.zeros(len(GDT_TS))
    for apart_SL in distances(known, made, GDT_TS):
        best_tm = max(best_tm, float((1 / (1 + (apart_SL / scale) ** 2)).mean(axis=1).max()))
        most = np.maximum(most, [(apart_SL <= threshold).mean(axis=1).max() for threshold in GDT_TS])
    return {"tm": best_tm, "gdt_ts": float(most.mean())}


def _rmsd(known: np.ndarray, made: np.ndarray) -> float:
    from biotite.structure import rmsd, superimpose

    moved, _ = superimpose(known, made)
    return float(rmsd(known, moved))
