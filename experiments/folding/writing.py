"""What a run leaves of its structures: rows of predictions, PDB files with confidence, and the per-target table."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.folding.metrics import METRICS, row_scores
from experiments.folding.target import Target
from lorta.embedded.amino_acids import ATOM_ORDER, ATOM_TYPES, THREE_LETTERS

CA = ATOM_ORDER["CA"]
TABLE = "targets.csv"
COLUMNS: tuple[str, ...] = ("name", "status", "residues", "compared", *METRICS, "plddt", "remark")
UNKNOWN = "UNK"


def prediction_row(target: Target, positions: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Return one row of predictions.jsonl: all that scoring and plotting need, in angstrom to the thousandth.

    `positions` is the predicted (L, 37, 3), `confidence` the predicted lDDT of each residue, (L,), 0 to 100. A CA that
    the target lacks is None.
    """
    known = target.mask[:, CA]
    reference = [_point(point) if there else None for point, there in zip(target.positions[:, CA], known, strict=True)]
    return {
        "name": target.name,
        "sequence": target.sequence,
        "reference_ca": reference,
        "predicted_ca": [_point(point) for point in positions[:, CA]],
        "plddt": [round(float(value), 2) for value in confidence],
    }


def _point(point: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in point]


def write_structure(
    file: Path, sequence: str, positions: np.ndarray, mask: np.ndarray, confidence: np.ndarray, chain: str = "A"
) -> None:
    """Write one chain as a PDB file; the B-factor of every atom is its residue's predicted lDDT, 0 to 100.

    positions: (L, 37, 3), angstrom; mask: (L, 37), atoms to write; confidence: (L,). Raises ValueError for what the
    format cannot hold: coordinates that are no numbers or need more than eight columns, or more than 9,999 residues.
    """
    from biotite.structure import AtomArray
    from biotite.structure.io.pdb import PDBFile

    residues, kinds = np.nonzero(mask)
    atoms: Any = AtomArray(len(residues))
    atoms.coord = positions[residues, kinds]
    if not np.isfinite(atoms.coord).all() or np.abs(atoms.coord).max(initial=0) >= 1000 or len(sequence) > 9999:
        raise ValueError(f"{file.name}: a PDB file holds finite coordinates under 1000 angstrom and 9,999 residues.")
    atoms.atom_name = np.array(ATOM_TYPES)[kinds]
    atoms.element = np.array([name[0] for name in ATOM_TYPES])[kinds]
    atoms.res_name = np.array([THREE_LETTERS.get(letter, UNKNOWN) for letter in sequence])[residues]
    atoms.res_id, atoms.chain_id[:] = residues + 1, chain
    atoms.set_annotation("b_factor", np.asarray(confidence, dtype=float)[residues])
    atoms.set_annotation("occupancy", np.ones(len(residues)))
    written = PDBFile()
    written.set_structure(atoms)
    _write(file, "".join(f"{line}\n" for line in [*written.lines, "TER", "END"]))


def write_table(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    refused: Sequence[tuple[str, str]] = (),
    remarks: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write FOLDER/targets.csv and return its path: a line for every target, scored, unscored or refused.

    `rows` are of `prediction_row`; `refused` and `remarks` are (file or target, sentence), from `index.plan_targets`.
    Columns: lddt_ca, tm, gdt_ts 0 to 1; rmsd_ca angstrom; plddt the mean over residues, 0 to 100.
    """
    said: dict[str, list[str]] = {}
    for name, sentence in remarks:
        said.setdefault(name, []).append(sentence)
    lines = [_line(row, " ".join(said.get(row["name"], []))) for row in rows]
    lines += [{"name": name, "status": "refused", "remark": sentence} for name, sentence in refused]
    file = folder / TABLE
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return file


def _line(row: Mapping[str, Any], remark: str) -> dict[str, Any]:
    counts = {
        "residues": len(row["sequence"]),
        "compared": sum(point is not None for point in row["reference_ca"]),
        "plddt": f"{math.fsum(row['plddt']) / len(row['plddt']):.2f}",
    }
    try:
        scores = {name: f"{value:.4f}" for name, value in row_scores(row).items()}
    except ValueError as error:
        return {"name": row["name"], "status": "unscored", "remark": f"{remark} {error}".strip(), **counts}
    return {"name": row["name"], "status": "scored", "remark": remark, **counts, **scores}


def _write(file: Path, text: str) -> None:
    """Write beside the final place and rename: a killed run leaves no half-written structure."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(file)
