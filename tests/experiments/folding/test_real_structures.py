"""The 66 structures of the shared data, where they are: all are read, as their index says, and split by identity."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.folding import splits
from experiments.folding.index import plan_targets
from experiments.folding.metrics import chain_scores
from lorta.embedded.amino_acids import ATOM_ORDER

SHARED = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[4] / "shared" / "data"))
CA = ATOM_ORDER["CA"]
pytestmark = pytest.mark.skipif(not (SHARED / "protein").is_dir(), reason=f"there is no {SHARED / 'protein'}")


@pytest.fixture(scope="module")
def planned():
    return plan_targets(str(SHARED))


def test_every_structure_is_a_target_without_a_remark(planned):
    assert (len(planned.targets), planned.refused, planned.remarks) == (66, (), ())


def test_sequences_and_names_are_those_of_the_index(planned):
    with (SHARED / "protein" / "index.tsv").open() as stream:
        rows = {Path(row["file"]).stem: row["sequence"] for row in csv.DictReader(stream, delimiter="\t")}
    assert {one.name: one.sequence for one in planned.targets} == rows


def test_every_backbone_is_complete(planned):
    backbone = [ATOM_ORDER[name] for name in ("N", "CA", "C", "O")]
    assert all(one.mask[:, backbone].all() for one in planned.targets)


def test_side_chains_have_no_atom_that_their_residue_lacks(planned):
    from transformers.models.esm.openfold_utils import residue_constants as alphafold

    for one in planned.targets:
        allowed = alphafold.restype_atom37_mask[[alphafold.restype_order[letter] for letter in one.sequence]] > 0
        allowed[:, ATOM_ORDER["OXT"]] = True
        assert (allowed | ~one.mask).all()


def test_a_moved_copy_of_every_structure_is_perfect(planned):
    for one in planned.targets[::3]:
        known = one.positions[:, CA]
        assert chain_scores(known, known[:, [1, 2, 0]] + 7)["tm"] == pytest.approx(1, abs=1e-4)


def test_no_relatives_are_on_both_sides(planned):
    split = splits.split_targets(planned, 0.3, 0.2)
    assert (len(split.train), len(split.validation), len(set(split.clusters.values()))) == (53, 13, 56)
    across = [splits.identity(one.sequence, two.sequence) for one in split.train for two in split.validation]
    assert np.max(across) < 0.3


def test_planning_imports_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from experiments.folding import index, splits; "
        f"p = index.plan_targets({str(SHARED)!r}); print(len(p.targets), len(splits.fingerprints(p, 0.3, 0.2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["66", "2"]
