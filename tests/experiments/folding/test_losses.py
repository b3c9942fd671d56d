"""Each term of the loss: cases worked out by hand, and what moving, turning and mirroring the target does to it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers.models.esm.openfold_utils.rigid_utils import Rigid

from experiments.folding.batches import collate
from experiments.folding.losses import (
    angle_norm,
    backbone_fape,
    confidence,
    distogram,
    lddt_ca,
    loss_terms,
    torsion,
    total_loss,
)
from experiments.folding.metrics import lddt_per_residue
from experiments.folding.settings import LossWeights
from experiments.folding.target import Target
from lorta.embedded.folds import fold_rows

ALONG_X = torch.tensor([[0.0, 0, 0], [3.0, 0, 0]])
LAYERS, BINS = 2, 50


def unturned(points):
    """Frames (..., 7) at points (..., 3) that are not turned."""
    return torch.cat([torch.ones_like(points[..., :1]), torch.zeros_like(points), points], dim=-1)


def fape(predicted, true, mask=(1.0, 1.0), clamped_share=1.0):
    frames = Rigid.from_tensor_7(unturned(true)[None])
    return backbone_fape(unturned(predicted)[None, None], frames, torch.tensor([mask]), clamped_share)


def test_fape_is_the_mean_over_frames_and_points_in_units_of_ten_angstrom():
    found = fape(ALONG_X + torch.tensor([[0.0, 0, 0], [4.0, 0, 0]]), ALONG_X)  # each sees the other 4 A too far
    assert_close(found, torch.tensor([[(0.01 + 4 + 4 + 0.01) / 4 / 10]]), atol=1e-5, rtol=0)


def test_fape_is_clamped_at_ten_angstrom_in_the_share_that_is_asked_for():
    far = ALONG_X + torch.tensor([[0.0, 0, 0], [40.0, 0, 0]])
    values = [fape(far, ALONG_X, clamped_share=share).item() for share in (1.0, 0.0, 0.9)]
    assert values == pytest.approx([0.5005, 2.0005, 0.9 * 0.5005 + 0.1 * 2.0005], abs=1e-5)


def test_fape_sees_a_turned_frame():
    turned = unturned(ALONG_X)
    turned[1, :4] = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])  # a quarter turn about z
    frames = Rigid.from_tensor_7(unturned(ALONG_X)[None])
    found = backbone_fape(turned[None, None], frames, torch.ones(1, 2), 1.0)
    assert found.item() == pytest.approx((3 * 0.01 + math.sqrt(18)) / 4 / 10, abs=1e-4)  # sees the other where y is


def test_fape_leaves_out_residues_without_a_frame():
    nowhere = torch.tensor([[0.0, 0, 0], [99.0, 9, 9]])
    assert fape(nowhere, ALONG_X, mask=(1.0, 0.0)).item() == pytest.approx(0.001, abs=1e-6)


def test_torsion_is_the_squared_chord_to_the_nearer_name():
    predicted = torch.tensor([0.0, 1.0]).expand(1, 1, 1, 7, 2)
    true = torch.tensor([1.0, 0.0]).expand(1, 1, 7, 2).clone()  # a quarter turn: squared chord 2
    same = true.clone()
    same[..., 6, :] = torch.tensor([0.0, 1.0])  # the other name of chi4 fits
    mask = torch.tensor([[[0.0, 0, 0, 0, 0, 1, 1]]])
    assert torsion(predicted, true, same, mask).item() == pytest.approx((2 + 0) / 2)


def test_angle_norm_is_the_distance_to_the_unit_circle():
    predicted = torch.tensor([3.0, 4.0]).expand(1, 1, 2, 7, 2)
    assert angle_norm(predicted, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(4.0)


def test_distogram_is_the_log_of_the_probability_of_the_true_bin():
    width = (21.6875 - 2.3125) / 62
    bins = {0: 0.0, 1: 2.3125 + width / 2, 62: 21.6, 63: 30.0}  # bin -> distance
    for place, distance in bins.items():
        logits = torch.zeros(1, 2, 2, 64)
        logits[0, 0, 1, place] = logits[0, 1, 0, place] = logits[0, 0, 0, 0] = logits[0, 1, 1, 0] = math.log(63.0)
        points = torch.tensor([[[0.0, 0, 0], [distance, 0, 0]]])
        assert distogram(logits, points, torch.ones(1, 2)).item() == pytest.approx(math.log(2), abs=1e-5)


def test_confidence_is_the_log_of_the_probability_of_the_residue_s_lddt():
    true = torch.tensor([[[0.0, 0, 0], [5, 0, 0], [10, 0, 0]]])
    predicted = torch.tensor([[[0.0, 0, 0], [5, 0, 0], [11.5, 0, 0]]])  # last pair distances off by 1.5: 2 of 4 kept
    assert_close(lddt_ca(predicted, true, torch.ones(1, 3)), torch.tensor([[0.75, 0.75, 0.5]]))
    logits = torch.zeros(1, 3, BINS)
    for residue, score in enumerate((0.75, 0.75, 0.5)):
        logits[0, residue, int(score * BINS)] = math.log(49.0)
    assert confidence(logits, predicted, true, torch.ones(1, 3)).item() == pytest.approx(math.log(2), abs=1e-5)


def test_lddt_is_the_scoring_module_s():
    batch = collate([Target(*row) for row in fold_rows("validation")[:3]])
    true, mask = batch["positions"][:, :, 1], batch["atom_mask"][:, :, 1].clone()
    mask[0, 4] = 0
    predicted = true + torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    found = lddt_ca(predicted, true, mask)
    for row, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        reference = torch.where(mask[row, :length, None] > 0, true[row, :length], torch.nan).double().numpy()
        expected = lddt_per_residue(reference, predicted[row, :length].double().numpy())
        assert found[row, :length].numpy() == pytest.approx(np.nan_to_num(expected), abs=1e-5)


@pytest.fixture(scope="module")
def batch():
    return collate([Target(*row) for row in fold_rows("train")[:2]])


@pytest.fixture(scope="module")
def output(batch):
    """A prediction that is as wrong as random numbers are."""
    generator = torch.Generator().manual_seed(1)
    shape = (LAYERS, *batch["input_ids"].shape)
    quaternions = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=generator), dim=-1)
    places = 8 * torch.randn(*shape, 3, generator=generator)
    raw = torch.randn(*shape, 7, 2, generator=generator)
    return SimpleNamespace(
        frames=torch.cat([quaternions, places], dim=-1),
        angles=torch.nn.functional.normalize(raw, dim=-1),
        unnormalized_angles=raw,
        distogram_logits=torch.randn(*shape[1:], shape[2], 64, generator=generator),
        lddt_head=torch.randn(*shape, 37, BINS, generator=generator),
    )


def terms_of(output, batch):
    return {name: term.tolist() for name, term in loss_terms(output, batch, 0.9).items()}


def flat(output, batch):
    return [value for term in terms_of(output, batch).values() for value in term]


def moved(batch, matrix, shift):
    """The batch with its known atoms moved."""
    positions = (batch["positions"] @ matrix.T + shift) * batch["atom_mask"][..., None]
    return batch | {"positions": positions}


ROTATION = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
ROTATION = ROTATION * torch.linalg.det(ROTATION)


@pytest.mark.parametrize("name", ["backbone_fape", "torsion", "angle_norm", "distogram", "plddt"])
def test_turning_and_moving_the_target_changes_nothing(name, output, batch):
    after = terms_of(output, moved(batch, ROTATION, torch.tensor([30.0, -7.0, 4.0])))
    assert after[name] == pytest.approx(terms_of(output, batch)[name], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "sees_hands"), [("backbone_fape", True), ("torsion", True), ("distogram", False), ("plddt", False)]
)
def test_a_mirrored_target_is_another_one_except_to_distances(name, sees_hands, output, batch):
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    before, after = terms_of(output, batch)[name], terms_of(output, moved(batch, mirror, torch.zeros(3)))[name]
    assert (after != pytest.approx(before, rel=1e-4)) is sees_hands


def test_what_is_missing_in_the_target_may_lie_anywhere(output, batch):
    lacking = batch | {"atom_mask": batch["atom_mask"].clone()}
    lacking["atom_mask"][:, 3:6] = 0
    elsewhere = lacking | {"positions": batch["positions"].clone()}
    elsewhere["positions"][:, 3:6] = 500.0
    zeroed = lacking | {"positions": batch["positions"] * lacking["atom_mask"][..., None]}
    assert flat(output, elsewhere) == pytest.approx(flat(output, zeroed))
    assert flat(output, zeroed) != pytest.approx(flat(output, batch))


def test_a_target_without_any_atom_costs_nothing_and_is_no_nan(output, batch):
    empty = batch | {
        "atom_mask": torch.zeros_like(batch["atom_mask"]),
        "positions": torch.zeros_like(batch["positions"]),
    }
    found = terms_of(output, empty)
    assert [found[name] for name in ("backbone_fape", "torsion", "distogram", "plddt")] == [[0.0, 0.0]] * 4


def test_the_total_weighs_terms_and_long_chains():
    terms = {
        name: torch.tensor([1.0, 2.0]) for name in ("backbone_fape", "torsion", "angle_norm", "distogram", "plddt")
    }
    weights = LossWeights(backbone_fape=0.5, torsion=0.0, angle_norm=0.0, distogram=0.25, plddt=0.0)
    assert total_loss(terms, weights, torch.tensor([4, 9])).item() == pytest.approx((2 * 0.75 + 3 * 1.5) / 2)
