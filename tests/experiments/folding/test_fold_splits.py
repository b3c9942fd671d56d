"""Splits: relatives stay together, every target is on one side, and the fingerprint knows what fixes them."""

from random import Random

import numpy as np
import pytest

from experiments.folding import splits
from experiments.folding.index import Planned
from experiments.folding.target import Target

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def random_sequence(seed, length=80):
    return "".join(Random(seed).choices(LETTERS, k=length))


def mutated(sequence, share, seed):
    random = Random(seed)
    return "".join(random.choice(LETTERS) if random.random() < share else letter for letter in sequence)


def target(name, sequence, shift=0.0):
    mask = np.zeros((len(sequence), 37), dtype=bool)
    mask[:, :4] = True
    positions = np.where(mask[..., None], np.float32(1 + shift), np.float32(0))
    return Target(name, sequence, positions, mask)


PARENTS = [random_sequence(seed) for seed in range(8)]
FAMILIES = [
    target(f"{parent}_{child}", mutated(sequence, 0.25, 100 * parent + child))
    for parent, sequence in enumerate(PARENTS)
    for child in range(3)
]


def planned(targets, split=None):
    return Planned(tuple(targets), (), (), split)


def test_families_are_found_whole():
    found = splits.clusters(tuple(one.sequence for one in FAMILIES), 0.4)
    assert [[FAMILIES[place].name[0] for place in places] for places in found] == [[str(n)] * 3 for n in range(8)]


def test_no_two_sides_share_a_pair_above_the_threshold():
    split = splits.split_targets(planned(FAMILIES), 0.3, 0.25)
    across = [splits.identity(one.sequence, two.sequence) for one in split.train for two in split.validation]
    assert max(across) < 0.3


def test_every_target_is_on_exactly_one_side():
    split = splits.split_targets(planned(FAMILIES), 0.4, 0.25)
    names = [one.name for one in (*split.train, *split.validation)]
    assert sorted(names) == sorted(one.name for one in FAMILIES)
    assert len(split.validation) == 6


def test_the_side_of_a_target_does_not_depend_on_the_order():
    first = splits.split_targets(planned(FAMILIES), 0.4, 0.25)
    second = splits.split_targets(planned(FAMILIES[::-1]), 0.4, 0.25)
    assert {one.name for one in first.validation} == {one.name for one in second.validation}


def test_the_index_may_say_how_to_split():
    sides = ("validation", *["train"] * 23)
    split = splits.split_targets(planned(FAMILIES, sides), 0.3, 0.25)
    assert split.validation == (FAMILIES[0],)
    assert split.clusters == {}


def test_one_cluster_cannot_be_split():
    with pytest.raises(ValueError, match="no target is left for training: the 3 targets are 1 clusters"):
        splits.split_targets(planned(FAMILIES[:3]), 0.3, 0.25)


def test_an_index_without_validation_is_refused():
    with pytest.raises(ValueError, match="no target is left for validation"):
        splits.split_targets(planned(FAMILIES, ("train",) * 24), 0.3, 0.25)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [("ACDEFGHIKL", "ACDEFGHIKL", 1.0), ("ACDEFGHIKL", "WWACDEFGHIKLWW", 1.0), ("ACDEFGHIKL", "ACDEFWHIKL", 0.9)],
)
def test_identity_counts_over_the_shorter_sequence(one, two, expected):
    assert splits.identity(one, two) == splits.identity(two, one) == pytest.approx(expected)


def test_unrelated_sequences_are_mostly_under_the_threshold():
    values = [splits.identity(random_sequence(seed), random_sequence(seed + 50)) for seed in range(20)]
    assert np.mean(np.array(values) < 0.3) > 0.9


@pytest.mark.parametrize(
    "change",
    [
        lambda targets: (targets[1:], 0.3, 0.2),
        lambda targets: ([target(targets[0].name, targets[0].sequence, shift=0.002), *targets[1:]], 0.3, 0.2),
        lambda targets: ([targets[0]._replace(sequence=f"W{targets[0].sequence[1:]}"), *targets[1:]], 0.3, 0.2),
        lambda targets: (targets, 0.4, 0.2),
        lambda targets: (targets, 0.3, 0.3),
    ],
    ids=["a target less", "a moved atom", "another letter", "another threshold", "another share"],
)
def test_the_fingerprint_changes_with_all_that_moves_a_number(change):
    targets, threshold, share = change(FAMILIES)
    before = splits.fingerprints(planned(FAMILIES), 0.3, 0.2)
    assert splits.fingerprints(planned(targets), threshold, share) != before


def test_the_fingerprint_knows_the_split_of_the_index():
    sides = ["validation", *["train"] * 23]
    one = splits.fingerprints(planned(FAMILIES, tuple(sides)), 0.3, 0.2)
    assert one != splits.fingerprints(planned(FAMILIES, tuple(sides[::-1])), 0.3, 0.2)
