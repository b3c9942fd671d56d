"""What a predicted structure is trained on: Jumper et al. 2021 (AlphaFold 2), supplement 1.9; constants as OpenFold's.

Every term is a mean over one chain, so that all have the shape (B,). K are the blocks of the structure module, all of
which are trained; L residues; masks are 1 where the target is known. Left out of AlphaFold's sum: what needs an
alignment, the side chains' FAPE, and the violations that it adds at the end of its training.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.models.esm.openfold_utils.rigid_utils import Rigid

from experiments.folding.frames import CA, backbone_frames, equal_angles, pseudo_beta, torsion_angles
from experiments.folding.settings import LossWeights

CLAMP = 10.0  # angstrom, algorithm 28
UNIT = 10.0  # angstrom that count as 1, algorithm 28
DISTOGRAM = (2.3125, 21.6875, 64)  # angstrom: first and last boundary, and the number of bins: 1.9.8
CONFIDENCE_BINS = 50  # of lDDT from 0 to 1: 1.9.6
INCLUSION_RADIUS = 15.0  # angstrom, lDDT's: Mariani et al. 2013
THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # angstrom, lDDT's
FAPE_EPSILON = 1e-4  # square angstrom: keeps the root's gradient finite, OpenFold's `eps`


def loss_terms(outputs: Any, batch: Mapping[str, Tensor], clamped_share: float) -> dict[str, Tensor]:
    """Return term -> (B,) under the names of LossWeights, for the model's output on one of `batches`' batches."""
    residues, positions, mask = batch["input_ids"], batch["positions"], batch["atom_mask"]
    frames, frames_mask = backbone_frames(positions, mask)
    true_angles, angles_mask = torsion_angles(positions, mask, residues)
    predicted_ca = Rigid.from_tensor_7(outputs.frames).get_trans()[-1]
    return {
        "backbone_fape": backbone_fape(outputs.frames, frames, frames_mask, clamped_share).mean(dim=0),
        "torsion": torsion(outputs.angles, true_angles, equal_angles(true_angles, residues), angles_mask).mean(dim=0),
        "angle_norm": angle_norm(outputs.unnormalized_angles, batch["attention_mask"]).mean(dim=0),
        "distogram": distogram(outputs.distogram_logits, *pseudo_beta(positions, mask, residues)),
        "plddt": confidence(outputs.lddt_head[-1][..., CA, :], predicted_ca, positions[..., CA, :], mask[..., CA]),
    }


def total_loss(terms: Mapping[str, Tensor], weights: LossWeights, lengths: Tensor) -> Tensor:
    """Return the batch's loss: weighted terms, and chains weighted by the root of their length (supplement, 1.9)."""
    weighted: Any = sum(getattr(weights, field.name) * terms[field.name] for field in fields(weights))
    return (lengths.to(weighted.dtype).sqrt() * weighted).mean()


def backbone_fape(predicted: Tensor, true: Rigid, mask: Tensor, clamped_share: float) -> Tensor:
    """Return the frame-aligned point error of CA (K, B), in units of 10 A. Algorithm 28.

    `predicted` frames are (K, B, L, 7): a quaternion and a position. AlphaFold clamps nine chains of ten (1.11.5);
    here each chain counts as `clamped_share` clamped.
    """
    frames = Rigid.from_tensor_7(predicted)
    local = frames.invert()[..., None].apply(frames.get_trans()[..., None, :, :])
    true_local = true.invert()[..., None].apply(true.get_trans()[..., None, :, :])
    error = ((local - true_local) ** 2).sum(dim=-1).add(FAPE_EPSILON).sqrt()  # (K, B, L, L): of a point in a frame
    error = clamped_share * error.clamp(max=CLAMP) + (1 - clamped_share) * error
    return masked_mean(error, mask[:, :, None] * mask[:, None, :], dims=(-2, -1)) / UNIT


def torsion(predicted: Tensor, true: Tensor, same: Tensor, mask: Tensor) -> Tensor:
    """Return the squared distance of angles on the unit circle (K, B), to the nearer of two names. Algorithm 27.

    `predicted` is (K, B, L, 7, 2), the others lack K.
    """
    error = torch.minimum(((predicted - true) ** 2).sum(dim=-1), ((predicted - same) ** 2).sum(dim=-1))
    return masked_mean(error, mask, dims=(-2, -1))


def angle_norm(predicted: Tensor, residues_mask: Tensor) -> Tensor:
    """Return how far angles (K, B, L, 7, 2), before they are normalised, are from the unit circle. Algorithm 27."""
    norm = (predicted**2).sum(dim=-1).add(1e-8).sqrt()
    return masked_mean((norm - 1).abs().mean(dim=-1), residues_mask, dims=(-1,))


def distogram(logits: Tensor, points: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy in nats (B,) of distances between `points` (B, L, 3), in 64 bins. Supplement, 1.9.8."""
    first, last, bins = DISTOGRAM
    boundaries = torch.linspace(first, last, bins - 1, device=points.device)
    target = torch.bucketize(torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist"), boundaries)
    error = cross_entropy(logits.float().movedim(-1, 1), target, reduction="none")
    return masked_mean(error, mask[:, :, None] * mask[:, None, :], dims=(-2, -1))


def confidence(logits: Tensor, predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy in nats (B,) of each residue's lDDT-Ca, in 50 bins. Algorithm 29 and 1.9.6."""
    score = lddt_ca(predicted.detach(), true, mask)
    target = (score * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    error = cross_entropy(logits.float().movedim(-1, 1), target, reduction="none")
    return masked_mean(error, mask, dims=(-1,))


def lddt_ca(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Return the lDDT-Ca (B, L) of each residue, from 0 to 1, against (B, L, 3). Mariani et al. 2013.

    A residue that is not known, or knows no other within the radius, gets 0.
    """
    distance, true_distance = (
        torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") for points in (predicted, true)
    )
    pairs = mask[:, :, None] * mask[:, None, :] * (true_distance < INCLUSION_RADIUS)
    pairs = pairs * (1 - torch.eye(mask.shape[1], device=mask.device))
    error = (distance - true_distance).abs()
    kept = torch.stack([error < threshold for threshold in THRESHOLDS]).float().mean(dim=0)
    return masked_mean(kept, pairs, dims=(-1,))


def masked_mean(values: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the mean over `dims` of the values where the mask, of their trailing shape, is 1; 0 where it never is."""
    return (values * mask).sum(dim=dims) / mask.sum(dim=dims).clamp(min=1)
