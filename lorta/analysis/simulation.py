"""Simulated studies of two methods whose true difference is known: how often verdicts are false, and how many seeds.

All studies of a world are drawn and judged at once, with the intervals and boundaries of `equivalence` and
`sequential`. A plan whose least number of seeds is its most is a study of a fixed number.
"""

from dataclasses import dataclass

import numpy as np

from lorta.analysis.clusters import item_variance
from lorta.analysis.equivalence import LEVEL, Difference, half_width
from lorta.analysis.sequential import SeedPlan, chance

Array = np.ndarray
STUDIES = 2000


@dataclass(frozen=True)
class World:
    """What is true, in points: the difference, and standard deviations of what seeds, items and both together add.

    A seed's score has the mean of its `items`; 0 items are a metric of which only the seeds' scores are known.
    """

    difference: float
    by_seed: float
    by_item: float = 0.0
    together: float = 0.0
    items: int = 0


@dataclass(frozen=True)
class Outcome:
    """Shares of all studies, and the mean number of seeds that a study took."""

    false: float  # better, worse or equivalent where it is not so
    different: float
    equivalent: float
    seeds: float

    @property
    def decided(self) -> float:
        """The share of studies with a verdict."""
        return self.different + self.equivalent


def draw(
    world: World, seeds: int, generator: np.random.Generator, studies: int = STUDIES
) -> tuple[Array, Array | None]:
    """Return differences (studies, seeds), and their items (studies, seeds, items) if there are."""
    skill = world.difference + world.by_seed * generator.standard_normal((studies, seeds))
    if not world.items:
        return skill, None
    items = world.by_item * generator.standard_normal((studies, 1, world.items))
    items = items + world.together * generator.standard_normal((studies, seeds, world.items)) + skill[..., None]
    return items.mean(axis=-1), items


def judge_at_once(
    values: Array, items: Array | None, margin: float, plan: SeedPlan, level: float = LEVEL
) -> tuple[Array, Array, Array]:
    """Return for each study whether it says equivalent, whether it says different, and its seeds, (studies,)."""
    known = chance(plan)
    taken = np.full(len(values), plan.most)
    equivalent, different = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for seeds in plan.looks:
        part = None if items is None else item_variance(items[:, :seeds])
        difference = Difference(values[:, :seeds]) if part is None else Difference(values[:, :seeds], part)
        estimate, weight = np.abs(difference.mean), plan.weight(seeds)
        still_open = ~(equivalent | different)
        within = estimate + half_width(difference, known.quotient(level) * weight) <= margin
        apart = estimate >= half_width(difference, known.quotient(level / 2) * weight)
        equivalent |= still_open & within
        different |= still_open & apart & ~within
        taken[still_open & (within | apart)] = seeds
    return equivalent, different, taken


def simulate(world: World, margin: float, plan: SeedPlan, studies: int = STUDIES, seed: int = 1) -> Outcome:
    """Return how studies of this world end; "better" is false unless the true difference is above 0, "worse" alike."""
    values, items = draw(world, plan.most, np.random.default_rng(seed), studies)
    equivalent, different, taken = judge_at_once(values, items, margin, plan)
    ends = np.arange(len(values)), taken - 1
    estimates = np.cumsum(values, axis=1)[ends] / taken
    wrong_side = different & (np.sign(estimates) != np.sign(world.difference))
    false = wrong_side | (equivalent & (abs(world.difference) >= margin))
    return Outcome(float(false.mean()), float(different.mean()), float(equivalent.mean()), float(taken.mean()))
