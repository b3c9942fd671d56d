"""Frames and torsion angles of known structures, against ESMFold's own way from angles to atoms, and toy folds."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close
from transformers.models.esm.openfold_utils import residue_constants as constants
from transformers.models.esm.openfold_utils.data_transforms import make_atom14_masks
from transformers.models.esm.openfold_utils.feats import (
    atom14_to_atom37,
    frames_and_literature_positions_to_atom14_pos,
    torsion_angles_to_frames,
)
from transformers.models.esm.openfold_utils.rigid_utils import Rigid, Rotation

from experiments.folding.batches import collate
from experiments.folding.frames import TORSIONS, backbone_frames, dihedrals, equal_angles, pseudo_beta, torsion_angles
from experiments.folding.target import Target
from lorta.embedded.folds import ANGLES, fold_rows, states

PSI = TORSIONS.index("psi")


@pytest.fixture(scope="module")
def built():
    """All twenty residues, built by ESMFold's code from random frames and angles."""
    torch.manual_seed(0)
    residues = torch.arange(20)[None]
    angles = normalize(torch.randn(1, 20, 7, 2), dim=-1)
    turned = Rotation(rot_mats=None, quats=normalize(torch.randn(1, 20, 4), dim=-1)).get_rot_mats()
    frames = Rigid(Rotation(rot_mats=turned), 5 * torch.randn(1, 20, 3))
    defaults = torch.tensor(constants.restype_rigid_group_default_frame)
    atoms = frames_and_literature_positions_to_atom14_pos(
        torsion_angles_to_frames(frames, angles, residues, defaults),
        residues,
        defaults,
        torch.tensor(constants.restype_atom14_to_rigid_group),
        torch.tensor(constants.restype_atom14_mask),
        torch.tensor(constants.restype_atom14_rigid_group_positions),
    )
    parts = make_atom14_masks({"aatype": residues})
    return residues, angles, frames, atom14_to_atom37(atoms, parts), parts["atom37_atom_exists"]


def test_frames_are_those_that_the_atoms_were_built_from(built):
    _, _, frames, positions, mask = built
    found, known = backbone_frames(positions, mask)
    assert_close(found.get_rots().get_rot_mats(), frames.get_rots().get_rot_mats())
    assert_close(found.get_trans(), frames.get_trans())
    assert known.all()


def test_psi_and_side_chain_angles_are_those_that_the_atoms_were_built_from(built):
    residues, angles, _, positions, mask = built
    found, known = torsion_angles(positions, mask, residues)
    assert_close(found[:, :, PSI:] * known[:, :, PSI:, None], angles[:, :, PSI:] * known[:, :, PSI:, None])
    assert known[:, :, PSI + 1 :].sum().item() == sum(len(chis) for chis in constants.chi_angles_atoms.values())


def test_omega_and_phi_of_helices_and_strands_are_the_textbook_s():
    row = next(fold for fold in fold_rows("validation") if "HHHH" in states(fold[1], True))
    batch = collate([Target(*row)])
    found, _ = torsion_angles(batch["positions"], batch["atom_mask"], batch["input_ids"])
    degrees = torch.rad2deg(torch.atan2(found[0, :, :3, 0], found[0, :, :3, 1]))
    for place, state in enumerate(states(row[1], True)):
        if state in ANGLES and place > 0:
            assert abs(degrees[place, 0].item()) == pytest.approx(180, abs=0.5)
            assert degrees[place, 1].item() == pytest.approx(ANGLES[state][0], abs=0.5)


def test_a_right_handed_quarter_turn_is_plus_ninety_degrees():
    points = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])
    assert_close(dihedrals(*points), torch.tensor([1.0, 0.0]))


def test_the_first_residue_and_one_behind_a_gap_have_no_omega_and_phi(built):
    batch = collate([Target(*fold_rows("train")[0])])
    batch["positions"][0, 5:] += torch.tensor([30.0, 0.0, 0.0])
    _, known = torsion_angles(batch["positions"], batch["atom_mask"], batch["input_ids"])
    assert (known[0, :, :2].sum(dim=-1) == 0).nonzero().flatten().tolist() == [0, 5]


def test_a_missing_atom_takes_away_the_angles_that_need_it(built):
    residues, _, _, positions, mask = built
    lacking = mask.clone()
    lacking[..., constants.atom_order["CG"]] = 0
    lost = torsion_angles(positions, mask, residues)[1] - torsion_angles(positions, lacking, residues)[1]
    with_cg = [
        letter for letter in constants.restypes if "CG" in constants.residue_atoms[constants.restype_1to3[letter]]
    ]
    assert [constants.restypes[place] for place in lost[0, :, PSI + 1].nonzero().flatten()] == with_cg


def test_only_the_angles_whose_atoms_can_change_names_are_turned_by_pi():
    angles, residues = torch.ones(1, 20, 7, 2), torch.arange(20)[None]
    turned = (equal_angles(angles, residues)[0, :, :, 0] < 0).nonzero().tolist()
    names = [f"{constants.restypes[residue]} {TORSIONS[angle]}" for residue, angle in turned]
    assert names == ["D chi2", "E chi3", "F chi2", "Y chi2"]


def test_glycine_is_placed_by_its_ca(built):
    residues, _, _, positions, mask = built
    points, known = pseudo_beta(positions, mask, residues)
    for letter, atom in (("G", "CA"), ("A", "CB")):
        place = constants.restype_order[letter]
        assert_close(points[0, place], positions[0, place, constants.atom_order[atom]])
    assert known.all()


def test_unknown_residues_have_no_side_chain_angles(built):
    *_, positions, mask = built
    _, known = torsion_angles(positions, mask, torch.full((1, 20), 20))
    assert math.isclose(known[..., PSI + 1 :].sum().item(), 0)
