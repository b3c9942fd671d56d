"""What a run leaves: structures that read back, rows that score, and a table that drops no target."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from biotite.structure.io.pdb import PDBFile
from structure_files import MASK, POSITIONS, SEQUENCE

from experiments.folding.index import plan_targets
from experiments.folding.metrics import METRICS, row_scores
from experiments.folding.plots import plot_target
from experiments.folding.target import Target
from experiments.folding.writing import prediction_row, write_structure, write_table

ROOT = Path(__file__).parents[3]
CONFIDENCE = np.linspace(10.0, 99.5, len(SEQUENCE))


def target(name="toy_A", mask=MASK):
    return Target(name, SEQUENCE, np.where(mask[..., None], POSITIONS, 0), mask)


def test_a_written_structure_reads_back_as_the_same_target(tmp_path):
    write_structure(tmp_path / "protein" / "toy.pdb", SEQUENCE, POSITIONS, MASK, CONFIDENCE)
    (found,) = plan_targets(str(tmp_path)).targets
    assert found.sequence == SEQUENCE
    assert (found.mask == MASK).all()
    assert np.abs(found.positions - POSITIONS).max() < 0.0006


def test_the_b_factor_is_the_confidence_of_the_residue(tmp_path):
    write_structure(tmp_path / "toy.pdb", SEQUENCE, POSITIONS, MASK, CONFIDENCE)
    atoms = PDBFile.read(str(tmp_path / "toy.pdb")).get_structure(model=1, extra_fields=["b_factor"])
    assert atoms.b_factor == pytest.approx(CONFIDENCE[atoms.res_id - 1], abs=0.006)


def test_unknown_residues_are_written_as_such(tmp_path):
    write_structure(tmp_path / "toy.pdb", f"X{SEQUENCE[1:]}", POSITIONS, MASK, CONFIDENCE)
    assert PDBFile.read(str(tmp_path / "toy.pdb")).get_structure(model=1).res_name[0] == "UNK"


@pytest.mark.parametrize("value", [np.nan, 1e5, -1000.0])
def test_coordinates_that_the_format_cannot_hold_are_refused(tmp_path, value):
    positions = POSITIONS.copy()
    positions[0, 0, 0] = value
    with pytest.raises(ValueError, match=r"toy\.pdb: a PDB file holds finite coordinates under 1000 angstrom"):
        write_structure(tmp_path / "toy.pdb", SEQUENCE, positions, MASK, CONFIDENCE)
    assert list(tmp_path.iterdir()) == []


def test_a_row_survives_json_and_scores_perfectly_against_itself():
    row = json.loads(json.dumps(prediction_row(target(), POSITIONS, CONFIDENCE)))
    assert row_scores(row) == pytest.approx({"lddt_ca": 1, "tm": 1, "gdt_ts": 1, "rmsd_ca": 0}, abs=1e-3)


def test_a_row_says_which_residues_have_no_reference():
    mask = MASK.copy()
    mask[3:6] = False
    row = prediction_row(target(mask=mask), POSITIONS, CONFIDENCE)
    assert [place for place, point in enumerate(row["reference_ca"]) if point is None] == [3, 4, 5]
    assert len(row["predicted_ca"]) == len(SEQUENCE)


def test_the_table_has_a_line_for_every_target_scored_or_not(tmp_path):
    rows = [
        prediction_row(target("good_A"), POSITIONS, CONFIDENCE),
        prediction_row(target("lost_A"), POSITIONS * np.nan, CONFIDENCE),
    ]
    file = write_table(tmp_path, rows, [("bad.pdb", "bad.pdb: no atoms, none")], [("good_A", "good.pdb: 2 models.")])
    with file.open(newline="") as stream:
        good, lost, bad = csv.DictReader(stream)
    assert (good["status"], good["lddt_ca"], good["remark"]) == ("scored", "1.0000", "good.pdb: 2 models.")
    assert float(good["plddt"]) == pytest.approx(CONFIDENCE.mean(), abs=0.01)
    assert (lost["status"], lost["tm"]) == ("unscored", "")
    assert "predicted CA atoms are NaN" in lost["remark"]
    assert (bad["name"], bad["status"], bad["remark"]) == ("bad.pdb", "refused", "bad.pdb: no atoms, none")


def test_the_table_has_every_metric(tmp_path):
    header = write_table(tmp_path, []).read_text().splitlines()[0].split(",")
    assert set(METRICS) < set(header)


def test_a_picture_depends_on_the_row_only(tmp_path):
    mask = MASK.copy()
    mask[3:6] = False
    row = json.loads(json.dumps(prediction_row(target(mask=mask), POSITIONS[:, :, ::-1], CONFIDENCE)))
    for name in ("one.png", "two.png"):
        plot_target(row, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    plot_target(row | {"plddt": [50.0] * len(SEQUENCE)}, tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


@pytest.fixture
def plot_folds():
    spec = importlib.util.spec_from_file_location("plot_folds", ROOT / "scripts" / "plot_folds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("wanted", "status"), [("one_A", 0), ("two_A", 1), ("three_A", 2)])
def test_the_script_draws_the_wanted_targets_of_a_run(plot_folds, tmp_path, monkeypatch, capsys, wanted, status):
    rows = [prediction_row(target(name), POSITIONS * by, CONFIDENCE) for name, by in (("one_A", 1), ("two_A", np.nan))]
    (tmp_path / "predictions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["plot_folds.py", str(tmp_path), "--targets", wanted])
    assert plot_folds.main() == status
    assert [file.name for file in tmp_path.glob("figures/*")] == (["one_A.png"] if status == 0 else [])
    assert (wanted in capsys.readouterr().err) == (status > 0)


def test_a_row_that_cannot_be_scored_gives_no_picture(tmp_path):
    with pytest.raises(ValueError, match="are NaN or infinite"):
        plot_target(prediction_row(target(), POSITIONS * np.nan, CONFIDENCE), tmp_path / "one.png")
    assert list(tmp_path.iterdir()) == []
