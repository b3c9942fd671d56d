"""The verdict on two methods: better, worse, equivalent within a margin, or undecided, each with its interval.

The estimate is the mean of paired differences over S seeds and the items that both methods were scored on; seeds and
items are crossed and both random. Its variance is that of seeds plus that of items. An interval reaches
sqrt(t_S^2 v_S + t_I^2 v_I) on either side, with Student's quantiles t of the degrees of freedom of each part: it covers
at least as often as it says, whatever the shares of the parts (Banerjee 1960, Sankhya 22, 359-378). Where items add
nothing, this is the paired t interval. The seeds' part is never less than what seeds and items do together, which far
more residuals measure: three seeds may agree by chance.

Equivalence is tested by two one-sided tests (Schuirmann 1987), a difference by a two-sided one. The two null hypotheses
of one comparison cannot both be true, so a comparison errs at most as often as `level` says; over a study's comparisons
the level is divided, step by step, by the comparisons that still have an open hypothesis (Holm 1979, Shaffer 1986).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from lorta.analysis.clusters import ItemVariance, item_variance
from lorta.analysis.resampling import Scores, Variance, pool
from lorta.analysis.summary import POINTS

Array = np.ndarray
LEVEL = 0.05
ROUNDING = 1e-12  # of the differences: a standard error below this share is none
SMALLEST_P = 1e-15
BISECTIONS = 60
NO_ITEMS = ItemVariance(np.zeros(()), np.zeros(()), math.inf, math.inf)


class Verdict(StrEnum):
    """What a comparison says about the first of two methods."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """Paired differences of two methods, positive where the first is better, (..., seeds); leading axes are studies."""

    values: Array
    items: ItemVariance = NO_ITEMS

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return self.values.shape[-1]

    @property
    def mean(self) -> Array:
        """The estimate, (...)."""
        return self.values.mean(axis=-1)

    @property
    def between_seeds(self) -> Array:
        """The variance of the mean that the seeds' differences show, (...)."""
        return self.values.var(axis=-1, ddof=1) / self.seeds


class Claims(NamedTuple):
    """One-sided p values of the three statements that a comparison can make; `equivalent` is 1 without a margin."""

    better: Array
    worse: Array
    equivalent: Array


Pair = tuple[float, float | None]  # p of no difference, p of no equivalence (None without a margin)


class Corrected(NamedTuple):
    """Corrected p values of each comparison, and the level that each has in the end."""

    pairs: list[Pair]
    level: float


class Sides(NamedTuple):
    """How often one side of an interval may err: of the outer interval, and of the inner one."""

    outer: float
    inner: float


@dataclass(frozen=True)
class Answer:
    """A verdict with the numbers behind it, in points; p values are corrected for the comparisons of the study.

    `interval` has confidence 1 - `level` and decides between better and worse by excluding 0. `inner` has confidence
    1 - 2 * `level` and decides for equivalence by lying within the margin: the same as two one-sided tests. `level` is
    what the correction leaves to this comparison, 0.05 where it is alone.
    """

    verdict: Verdict
    margin: float | None
    value: float
    interval: tuple[float, float]
    inner: tuple[float, float]
    level: float
    p_difference: float
    p_equivalence: float | None
    seeds: int
    alike: int = 0  # the number of rows, or of clusters of them, if both were scored alike on all of them


def summarise(differences: Scores, higher_is_better: bool = True) -> Difference:
    """Return paired differences (Scores.minus) with the variance that the choice of items adds, cluster by cluster.

    Scores without items, or with a single cluster, are compared over seeds alone: the verdict then holds for these
    items. Raises ValueError for fewer than two seeds and for scores that are not finite.
    """
    values = np.asarray(differences.values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"a comparison needs at least two seeds of both methods, got {len(values)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"a comparison needs finite scores, got differences of {values.tolist()}.")
    values = values if higher_is_better else -values
    items, clusters = differences.items, differences.clusters
    if items is None or (items.shape[1] if clusters is None else len(np.unique(clusters))) < 2:
        return Difference(values)
    return Difference(values, item_variance(items, clusters))


def average(differences: Sequence[Difference]) -> Difference:
    """Return the mean over tasks, seed by seed; each task has items of its own.

    Nothing is assumed about what one seed does to several tasks. Raises ValueError when the numbers of seeds differ.
    """
    if len({difference.seeds for difference in differences}) != 1:
        raise ValueError(f"an average needs as many seeds for each task, got {[of.seeds for of in differences]}.")
    values = np.mean([difference.values for difference in differences], axis=0)
    parts = [of.items for of in differences]
    items = pool([Variance(float(part.items), part.freedom) for part in parts])
    together = pool([Variance(float(part.interaction), part.interaction_freedom) for part in parts])
    shrink = len(parts) ** 2
    return Difference(
        values,
        ItemVariance(
            np.array(items.value / shrink), np.array(together.value / shrink), items.freedom, together.freedom
        ),
    )


def half_width(difference: Difference, level: Array | float, seeds: int | None = None) -> Array:
    """Return how far the interval reaches on either side, (...), if each side may err with probability `level`.

    With `seeds`: how far it would reach with so many seeds of the same spread.
    """
    items, seeds = difference.items, seeds or difference.seeds
    shrink = difference.seeds / seeds
    by_seeds = stdtrit(seeds - 1, level) ** 2 * difference.between_seeds * shrink
    together = stdtrit(items.interaction_freedom, level) ** 2 * items.interaction * shrink
    return np.sqrt(np.maximum(by_seeds, together) + stdtrit(items.freedom, level) ** 2 * items.items)


def claims(difference: Difference, margin: float | None) -> Claims:
    """Return the p values of what the difference may show, (...)."""
    better = p_greater(difference, 0.0)
    if margin is None:
        return Claims(better, 1 - better, np.ones_like(better))
    return Claims(better, 1 - better, np.maximum(p_greater(difference, -margin), 1 - p_greater(difference, margin)))


def p_greater(difference: Difference, bound: float) -> Array:
    """Return the one-sided p value, (...), of the hypothesis that the true difference is at most `bound`.

    It is the level whose interval ends at the bound. Where nothing varies it is that of the exact sign test over the
    seeds, or the chance that a share of rows as large as the distance (in points) shows none among the rows seen, if
    that is larger: ten rows that two methods answer alike do not make them equivalent.
    """
    distance = np.asarray(difference.mean - bound)
    reach = np.abs(distance)
    low, high = np.full(distance.shape, SMALLEST_P), np.full(distance.shape, 0.5)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        too_wide = half_width(difference, middle) > reach
        low, high = np.where(too_wide, middle, low), np.where(too_wide, high, middle)
    rounding = ROUNDING * np.abs(difference.values).max(axis=-1)
    unseen_rows = np.clip(1 - reach / POINTS, 0.0, 1.0) ** (difference.items.freedom + 1)
    sign_test = np.where(reach > rounding, np.clip(unseen_rows, 0.5**difference.seeds, 0.5), 0.5)
    tail = np.where(half_width(difference, LEVEL) <= rounding, sign_test, high)
    return np.where(distance > 0, tail, 1 - tail)


def judge(
    differences: Sequence[Difference | None], margins: Sequence[float | None], level: float = LEVEL
) -> list[Answer | None]:
    """Return the answers to a study's comparisons: with probability 1 - `level` or more, none of them is false.

    None is a comparison that has no differences yet: it has no answer, and counts in the correction all the same.
    """
    pairs = [
        unseen(margin) if difference is None else pair(claims(difference, margin), margin)
        for difference, margin in zip(differences, margins, strict=True)
    ]
    corrected = correct(pairs, level)
    sides = Sides(corrected.level / 2, corrected.level)
    return [
        None if difference is None else answer(difference, margin, own, adjusted, corrected.level, sides)
        for difference, margin, own, adjusted in zip(differences, margins, pairs, corrected.pairs, strict=True)
    ]


def unseen(margin: float | None) -> Pair:
    """Return the p values of a comparison without differences."""
    return 1.0, None if margin is None else 1.0


def pair(claim: Claims, margin: float | None) -> Pair:
    """Return the two-sided p value of no difference and that of no equivalence, of one study."""
    difference = min(1.0, 2 * min(float(claim.better), float(claim.worse)))
    return difference, None if margin is None else float(claim.equivalent)


def correct(pairs: Sequence[Pair], level: float = LEVEL) -> Corrected:
    """Return p values corrected over comparisons, step down, and the level that is left for each comparison at the end.

    At each step the p value is multiplied by the comparisons that still have a hypothesis which is not rejected: at
    most one of a comparison's two is true. Without margins this is Holm's correction.
    """
    open_hypotheses = [sum(p is not None for p in of) for of in pairs]
    corrected = [list(of) for of in pairs]
    largest, comparisons = 0.0, max(len(pairs), 1)
    for p, number, kind in sorted((p, number, kind) for number, of in enumerate(pairs) for kind, p in _known(of)):
        largest = max(largest, min(1.0, p * sum(count > 0 for count in open_hypotheses)))
        corrected[number][kind] = largest
        open_hypotheses[number] -= 1
        if largest <= level:
            comparisons = max(1, sum(count > 0 for count in open_hypotheses))
    return Corrected([(of[0] or 0.0, of[1]) for of in corrected], level / comparisons)


def _known(of: Pair) -> list[tuple[int, float]]:
    return [(kind, p) for kind, p in enumerate(of) if p is not None]


def answer(
    difference: Difference, margin: float | None, p: Pair, corrected: Pair, level: float, sides: Sides
) -> Answer:
    """Return the answer of p values that are compared with `level`; intervals err at most `sides` on each side."""
    value = float(difference.mean)
    outer, inner = (float(half_width(difference, side)) for side in sides)
    if p[1] is not None and p[1] <= level:
        verdict = Verdict.EQUIVALENT
    elif p[0] <= level:
        verdict = Verdict.BETTER if value > 0 else Verdict.WORSE
    else:
        verdict = Verdict.UNDECIDED
    interval, within = (value - outer, value + outer), (value - inner, value + inner)
    rows = difference.items.freedom + 1
    alike = round(rows) if outer <= ROUNDING * abs(value) and math.isfinite(rows) else 0
    return Answer(verdict, margin, value, interval, within, level, *corrected, difference.seeds, alike)
