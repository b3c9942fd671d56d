"""Seeds until decided: when a study may stop adding seeds to a comparison, however often it has looked.

A comparison is looked at with `least` seeds and after each further seed, up to `most`. A look's p value is divided by
its share of the most seeds (a later look may spend more), and the smallest quotient so far is compared with what paired
t tests of so many normal differences give by chance: the chance that the smallest quotient of all looks is that small
is simulated once for a plan. So any rule of stopping is allowed, looks may be left out, and "decided" stays decided
(group sequential t tests: Pocock 1977, Biometrika 64; repeated confidence intervals: Jennison and Turnbull 1989, JRSS B
51, 305-361; the family of boundaries: Wang and Tsiatis 1987, on the scale of p values).

Items add an error that all looks share, which makes looks more alike than the simulated ones: the chance is smaller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

from lorta.analysis.equivalence import (
    LEVEL,
    Answer,
    Claims,
    Difference,
    Pair,
    Sides,
    answer,
    average,
    claims,
    correct,
    half_width,
    pair,
    summarise,
    unseen,
)
from lorta.analysis.resampling import Scores

Array = np.ndarray
STUDIES = 100_000  # simulated for a plan; each counts from both sides
LEAST_COUNT = 200  # simulated studies beyond a quotient: fewer are not trusted
MOST_SEEDS = 100


@dataclass(frozen=True)
class SeedPlan:
    """Between `least` and `most` seeds. Raises ValueError unless 2 <= least <= most <= 100."""

    least: int
    most: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"the {name} number of seeds must be a whole number, got {value!r}.")
        if self.least > self.most:
            raise ValueError(f"the least number of seeds ({self.least}) is above the most ({self.most}); swap them.")
        if self.least < 2 or self.most > MOST_SEEDS:
            raise ValueError(f"seeds must lie between 2 and {MOST_SEEDS}, got {self.least} to {self.most}.")

    @property
    def looks(self) -> range:
        """The numbers of seeds after which a comparison may be looked at."""
        return range(self.least, self.most + 1)

    def weight(self, seeds: int) -> float:
        """Return the share of the most seeds, by which a look's p value is divided."""
        return seeds / self.most


@dataclass(frozen=True)
class Chance:
    """How likely the smallest quotient of all looks is to be small, where there is no difference."""

    plan: SeedPlan
    quotients: Array  # simulated, ascending

    def p_value(self, quotient: float) -> float:
        """Return the chance of a quotient this small or smaller; below what simulation shows, its upper bound.

        That bound is the sum of the chances of all looks (Bonferroni).
        """
        if len(self.plan.looks) == 1:
            return min(quotient, 1.0)
        bound = quotient * sum(map(self.plan.weight, self.plan.looks))
        count = max(int(np.searchsorted(self.quotients, quotient, side="right")), LEAST_COUNT)
        return min(bound, count / len(self.quotients), 1.0)

    def quotient(self, level: float) -> float:
        """Return the largest quotient whose p value is at most `level`."""
        if len(self.plan.looks) == 1:
            return level
        bounded = level / sum(map(self.plan.weight, self.plan.looks))
        count = math.floor(level * len(self.quotients))
        return max(bounded, float(self.quotients[count - 1])) if count >= LEAST_COUNT else bounded


@lru_cache(maxsize=16)
def chance(plan: SeedPlan) -> Chance:
    """Return the chance of quotients for a plan, from simulated differences of normal scores (seconds at most)."""
    generator = np.random.default_rng(1)
    total, squares = np.zeros(STUDIES), np.zeros(STUDIES)
    smallest = np.full((2, STUDIES), np.inf)
    for seeds in range(1, plan.most + 1) if len(plan.looks) > 1 else ():
        drawn = generator.standard_normal(STUDIES)
        total, squares = total + drawn, squares + drawn**2
        if seeds in plan.looks:
            variance = (squares - total**2 / seeds) / (seeds - 1)
            below = stdtr(seeds - 1, total / np.sqrt(seeds * variance))
            smallest = np.minimum(smallest, np.stack([below, 1 - below]) / plan.weight(seeds))
    return Chance(plan, np.sort(smallest.ravel()))


@dataclass(frozen=True)
class Decision:
    """An answer so far, and how many seeds the comparison needs next: `seeds` in all, if it is not `done`.

    `answer` is None before the least number of seeds. A decided answer is that of the look which decided.
    """

    answer: Answer | None
    done: bool
    seeds: int
    reason: str


def looks(tasks: Sequence[Scores], plan: SeedPlan, higher_is_better: bool = True) -> list[Difference]:
    """Return the mean difference over tasks at each look that the seeds allow, in the order in which seeds were added.

    `tasks` are the paired scores of each task (Scores.minus), of the same seeds. Raises ValueError as `summarise` does.
    """
    seeds = min((len(scores.seeds) for scores in tasks), default=0)
    return [
        average([summarise(scores.at(scores.seeds[:count]), higher_is_better) for scores in tasks])
        for count in plan.looks
        if count <= seeds
    ]


def decide(
    comparisons: Sequence[Sequence[Difference]],
    margins: Sequence[float | None],
    plan: SeedPlan,
    level: float = LEVEL,
) -> list[Decision]:
    """Return, for each comparison of a study, its answer so far and how many seeds to run next.

    `comparisons` are the looks of each. With probability 1 - `level` or more no answer is ever false, whenever the
    study stops; with `plan.least == plan.most` these are the answers of `equivalence.judge`.
    """
    known = chance(plan)
    paths = [_path(of, margin, known) for of, margin in zip(comparisons, margins, strict=True)]
    last = [path[-1] if path else unseen(margin) for path, margin in zip(paths, margins, strict=True)]
    corrected = correct(last, level)
    return [
        _decision(of, margin, path, p, known, corrected.level)
        for of, margin, path, p in zip(comparisons, margins, paths, corrected.pairs, strict=True)
    ]


def _path(of: Sequence[Difference], margin: float | None, known: Chance) -> list[Pair]:
    """Return the p values of no difference and of no equivalence after each look, valid whatever look is the last."""
    smallest, path = [math.inf] * len(Claims._fields), list[Pair]()
    for difference in of:
        quotients = [float(p) / known.plan.weight(difference.seeds) for p in claims(difference, margin)]
        smallest = [min(both) for both in zip(smallest, quotients, strict=True)]
        path.append(pair(Claims(*(np.array(known.p_value(quotient)) for quotient in smallest)), margin))
    return path


def _decision(
    of: Sequence[Difference], margin: float | None, path: Sequence[Pair], corrected: Pair, known: Chance, level: float
) -> Decision:
    plan = known.plan
    if not of:
        return Decision(None, False, plan.least, f"fewer than {plan.least} seeds so far.")
    decided = [number for number, p in enumerate(path) if min(p[0], 1.0 if p[1] is None else p[1]) <= level]
    look = decided[0] if decided else len(of) - 1
    difference = of[look]
    outer, inner = known.quotient(level / 2), known.quotient(level)
    weight = plan.weight(difference.seeds)
    answered = answer(difference, margin, path[look], corrected, level, Sides(outer * weight, inner * weight))
    if decided:
        return Decision(answered, True, difference.seeds, f"decided with {difference.seeds} seeds.")
    if difference.seeds >= plan.most:
        return Decision(answered, True, plan.most, f"undecided with the most seeds, {plan.most}.")
    if _items_forbid(difference, margin, Sides(outer, inner)):
        reason = "undecided, and more seeds cannot help: the items alone leave too large an error; take more items."
        return Decision(answered, True, difference.seeds, reason)
    wanted = _forecast(difference, margin, plan, Sides(outer, inner))
    halfway = difference.seeds + max(1, ((wanted or plan.most) - difference.seeds) // 2)  # the estimate may move
    outlook = f"{wanted} seeds would decide" if wanted else f"{plan.most} seeds would not decide"
    reason = f"undecided with {difference.seeds} seeds; with today's estimate and spread {outlook}."
    return Decision(answered, False, halfway, reason)


def _forecast(difference: Difference, margin: float | None, plan: SeedPlan, sides: Sides) -> int | None:
    """Return the number of seeds with which the same estimate and spread would decide, or None within the plan."""
    value = abs(float(difference.mean))
    for seeds in range(difference.seeds + 1, plan.most + 1):
        outer, inner = (float(half_width(difference, side * plan.weight(seeds), seeds)) for side in sides)
        if value > outer or (margin is not None and value + inner < margin):
            return seeds
    return None


def _items_forbid(difference: Difference, margin: float | None, sides: Sides) -> bool:
    """Return whether no number of seeds up to the most is likely to decide, because of the error that items leave.

    Equivalence is out of reach where that error alone is wider than the margin, and a difference where the estimate
    stays below its reach even if it moves as far as today's seeds let it (95 %).
    """
    error = math.sqrt(float(difference.items.items))
    outer, inner = (-float(stdtrit(difference.items.freedom, side)) * error for side in sides)
    moved = -float(stdtrit(difference.seeds - 1, LEVEL / 2)) * math.sqrt(float(difference.between_seeds))
    too_wide = margin is None or inner >= margin
    return error > 0 and too_wide and abs(float(difference.mean)) + moved <= outer
