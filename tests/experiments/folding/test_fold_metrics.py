"""Scores of structures: perfect for copies, worse for other things, and equal to independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from experiments.folding import metrics
from lorta.embedded import folds

SEQUENCE = "EMALKQEMALKQGNGVIYVTVIYGNGEMALKQEPNSWFTVIY"
KNOWN = folds.fold(SEQUENCE, shifted=False)[0][:, 1].astype(float)
OTHER = folds.fold(SEQUENCE, shifted=True)[0][:, 1].astype(float)


def moved(points, seed=0):
    random = np.random.default_rng(seed)
    return Rotation.random(rng=random).apply(points) + random.normal(scale=50, size=3)


def noisy(scale, seed=0):
    steps = np.random.default_rng(seed).normal(scale=scale, size=KNOWN.shape)
    return KNOWN + np.cumsum(steps, axis=0)


def lddt_by_definition(reference, predicted):
    """Mariani et al. 2013: of all pairs within 15 A, the share kept to 0.5, 1, 2 and 4 A, averaged."""
    kept = total = 0
    for one in range(len(reference)):
        for two in range(len(reference)):
            known = np.linalg.norm(reference[one] - reference[two])
            if one != two and known < 15:
                error = abs(known - np.linalg.norm(predicted[one] - predicted[two]))
                kept += sum(error < threshold for threshold in (0.5, 1, 2, 4)) / 4
                total += 1
    return kept / total


@pytest.mark.parametrize("seed", [0, 1])
def test_a_moved_copy_has_perfect_scores(seed):
    scores = metrics.chain_scores(KNOWN, moved(KNOWN, seed))
    assert scores == pytest.approx({"lddt_ca": 1, "tm": 1, "gdt_ts": 1, "rmsd_ca": 0}, abs=1e-4)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_no_score_depends_on_where_the_prediction_lies(seed):
    made = noisy(0.4, seed)
    first, second = metrics.chain_scores(KNOWN, made), metrics.chain_scores(KNOWN, moved(made, seed))
    assert second == pytest.approx(first, abs=2e-3)


def test_the_mirror_image_fails_every_score_but_lddt():
    scores = metrics.chain_scores(KNOWN, KNOWN * [1, 1, -1])
    assert scores["lddt_ca"] == 1  # made of distances, which a mirror keeps
    assert max(scores["tm"], scores["gdt_ts"]) < 0.7
    assert scores["rmsd_ca"] > 3


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.8])
def test_lddt_is_what_the_paper_defines(scale):
    made = noisy(scale)
    assert metrics.lddt_ca(KNOWN, made) == pytest.approx(lddt_by_definition(KNOWN, made), abs=1e-4)


def test_lddt_of_residues_averages_to_lddt_when_weighted_by_their_pairs():
    made = noisy(0.3)
    near = (np.linalg.norm(KNOWN[:, None] - KNOWN[None], axis=-1) < 15).sum(axis=1) - 1
    each = metrics.lddt_per_residue(KNOWN, made)
    assert np.average(each, weights=near) == pytest.approx(metrics.lddt_ca(KNOWN, made), abs=1e-5)


def test_residues_that_the_reference_lacks_are_not_compared():
    reference, made = KNOWN.copy(), noisy(0.3)
    reference[5:9] = np.nan
    made[5:9] = 1e6
    present = np.r_[0:5, 9 : len(KNOWN)]
    assert metrics.chain_scores(reference, made) == pytest.approx(metrics.chain_scores(KNOWN[present], made[present]))
    assert np.isnan(metrics.lddt_per_residue(reference, made)).nonzero()[0].tolist() == [5, 6, 7, 8]


def test_rmsd_is_that_of_scipys_best_rotation():
    made = noisy(0.5)
    centred, other = KNOWN - KNOWN.mean(0), made - made.mean(0)
    _, residual = Rotation.align_vectors(centred, other)
    assert metrics.chain_scores(KNOWN, made)["rmsd_ca"] == pytest.approx(residual / len(KNOWN) ** 0.5, abs=1e-4)


def apart(motion, made):
    return np.linalg.norm(Rotation.from_rotvec(motion[:3]).apply(made) + motion[3:] - KNOWN, axis=1)


def tm_at(motion, made):
    return float(np.mean(1 / (1 + (apart(motion, made) / metrics.tm_d0(len(KNOWN))) ** 2)))


@pytest.mark.parametrize("made", [noisy(0.5), noisy(1.0), OTHER], ids=["near", "far", "other"])
def test_no_superposition_found_by_optimisation_beats_the_search(made):
    random = np.random.default_rng(0)
    best_tm, counts = 0.0, np.zeros(4)
    for anchor in random.integers(len(KNOWN), size=12):
        start = Rotation.random(rng=random)
        motion = np.concatenate([start.as_rotvec(), KNOWN[anchor] - start.apply(made[anchor])])
        found = minimize(lambda m: -tm_at(m, made), motion, method="L-BFGS-B", options={"maxiter": 60})
        best_tm = max(best_tm, -found.fun)
        counts = np.maximum(counts, [(apart(found.x, made) <= threshold).mean() for threshold in (1, 2, 4, 8)])
    scores = metrics.chain_scores(KNOWN, made)
    assert scores["tm"] > best_tm - 0.005
    assert scores["gdt_ts"] > counts.mean() - 0.01


@pytest.mark.parametrize(("scale", "tm"), [(0.1, 0.9585), (0.2, 0.8681)])
def test_the_tm_score_is_that_of_tm_align(scale, tm):
    """Values of TM-align (tmtools 0.3.0), which aligned residue i with residue i for these pairs."""
    assert metrics.chain_scores(KNOWN, noisy(scale))["tm"] == pytest.approx(tm, abs=2e-3)


@pytest.mark.parametrize(("length", "scale"), [(10, 0.5), (16, 0.5), (100, 3.65), (300, 6.36)])
def test_the_tm_scale_is_that_of_the_paper(length, scale):
    assert metrics.tm_d0(length) == pytest.approx(scale, abs=0.01)


def test_gdt_ts_counts_residues_within_one_two_four_and_eight_angstrom():
    """Two halves a long way apart: one fits at every threshold, none of the other does."""
    made = KNOWN.copy()
    made[21:] += [500.0, 0, 0]
    assert metrics.chain_scores(KNOWN, made)["gdt_ts"] == pytest.approx(0.5, abs=0.02)


def test_worse_predictions_have_worse_scores():
    scores = [metrics.chain_scores(KNOWN, noisy(scale)) for scale in (0.05, 0.2, 0.8)]
    for name in ("lddt_ca", "tm", "gdt_ts"):
        assert scores[0][name] > scores[1][name] > scores[2][name]
    assert scores[0]["rmsd_ca"] < scores[1]["rmsd_ca"] < scores[2]["rmsd_ca"]


@pytest.mark.parametrize("length", [3, 4, 5, 9])
def test_the_shortest_chains_can_be_scored(length):
    assert metrics.chain_scores(KNOWN[:length], moved(KNOWN[:length]))["gdt_ts"] == 1


@pytest.mark.parametrize(
    ("reference", "predicted", "sentence"),
    [
        (KNOWN, KNOWN[1:], "must have one shape"),
        (KNOWN[:2], KNOWN[:2], "needs 3 residues with a CA atom, got 2"),
        (KNOWN, np.where(np.arange(len(KNOWN))[:, None] == 3, np.nan, KNOWN), "1 of 42 predicted CA atoms are NaN"),
        (KNOWN * 10, KNOWN * 10, "no two residues are within 15 angstrom"),
        (KNOWN * 1000, KNOWN, r"the reference is spread over \d+ angstrom, more than 3000"),
    ],
)
def test_what_cannot_be_compared_is_refused(reference, predicted, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.chain_scores(reference, predicted)


def row(name, predicted, reference=KNOWN):
    points = [None if np.isnan(point).any() else point.tolist() for point in reference]
    return {"name": name, "reference_ca": points, "predicted_ca": predicted.tolist()}


def test_the_score_of_a_run_is_the_mean_over_its_targets():
    found = metrics.score([row("perfect", moved(KNOWN)), row("far", noisy(0.8))])
    far = metrics.chain_scores(KNOWN, noisy(0.8))
    assert {name: score.n for name, score in found.items()} == dict.fromkeys(metrics.METRICS, 2)
    assert found["lddt_ca"].value == pytest.approx((1 + far["lddt_ca"]) / 2, abs=1e-4)


def test_a_target_that_cannot_be_scored_leaves_no_score_and_is_named():
    found = metrics.score([row("good", KNOWN), row("bad", KNOWN * np.nan)])
    assert found["lddt_ca"].value is None
    assert found["lddt_ca"].reason == "bad: 42 of 42 predicted CA atoms are NaN or infinite."


def test_no_targets_give_no_score_with_a_reason():
    assert metrics.score([])["tm"].reason == "no targets were scored"
