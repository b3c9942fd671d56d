"""Where the variance between runs comes from: initialisation, data order and dropout, each with a seed of its own.

Two designs are understood. Crossed: every combination of the seeds was run once; the variances are those of a random
three-way analysis of variance (Searle, Casella and McCulloch 1992, section 4.3), and what factors do together is a row
of its own, with the three-way interaction as its error. One at a time: a group of runs differs in one seed only; the
variance of a factor is the sample variance of its groups, with what the factor does together with the fixed others.
Variances of few seeds are rough: each row has the interval of its standard deviation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import chdtri

Array = np.ndarray
FACTORS = ("init", "order", "dropout")
TOGETHER = "together"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SeededScore:
    """The score of one run in points, with the seeds of initialisation, data order and dropout."""

    init: int
    order: int
    dropout: int
    score: float

    @property
    def seeds(self) -> tuple[int, int, int]:
        """The three seeds."""
        return self.init, self.order, self.dropout


@dataclass(frozen=True)
class VarianceRow:
    """One line of the table: a factor, its variance, and the interval (95 %) of its standard deviation in points.

    The interval is None where the variance is 0, or rests on less than one degree of freedom (`together` has none).
    """

    factor: str
    variance: float
    deviation: float
    share: float  # of the sum of all rows; 0 where nothing varies
    freedom: float
    interval: tuple[float, float] | None


def variance_shares(runs: Sequence[SeededScore]) -> list[VarianceRow]:
    """Return a row for each factor, and one for what they do together where the runs are crossed.

    Raises ValueError for scores that are not finite, for two runs of the same seeds, and for a factor that no two runs
    vary alone.
    """
    scores = {run.seeds: run.score for run in runs}
    if len(scores) < len(runs):
        raise ValueError(f"variance shares need each combination of seeds once, got {len(runs) - len(scores)} again.")
    if not np.isfinite(list(scores.values())).all():
        raise ValueError("variance shares need finite scores; leave out the runs that failed.")
    levels = [sorted({seeds[factor] for seeds in scores}) for factor in range(len(FACTORS))]
    counts = [len(of) for of in levels]
    if min(counts, default=0) > 1 and len(scores) == np.prod(counts):
        grid = np.array([scores[i, o, d] for i in levels[0] for o in levels[1] for d in levels[2]]).reshape(counts)
        return _rows(crossed_variances(grid))
    return _rows({name: one_at_a_time(scores, factor) for factor, name in enumerate(FACTORS)})


def one_at_a_time(scores: Mapping[tuple[int, int, int], float], factor: int) -> tuple[float, float]:
    """Return the variance between runs that differ in this seed alone, pooled over groups, with its freedom.

    Raises ValueError when no two runs do.
    """
    groups: dict[tuple[int, ...], list[float]] = {}
    for seeds, score in scores.items():
        groups.setdefault(seeds[:factor] + seeds[factor + 1 :], []).append(score)
    freedom = sum(len(group) - 1 for group in groups.values())
    if freedom == 0:
        others = " and ".join(name for name in FACTORS if name != FACTORS[factor])
        raise ValueError(
            f"the share of {FACTORS[factor]} needs two runs that differ in its seed alone, got none; "
            f"run another {FACTORS[factor]} seed with the seeds of {others} as they are."
        )
    return sum(float(np.var(group)) * len(group) for group in groups.values()) / freedom, float(freedom)


def crossed_variances(grid: Array) -> dict[str, tuple[float, float]]:
    """Return variance and degrees of freedom by factor, and together, of scores (init, order, dropout), one a cell.

    Negative estimates are 0. The freedom of a combination of mean squares is Satterthwaite's (1946).
    """
    squares = {axes: _mean_square(grid, axes) for size in (1, 2, 3) for axes in combinations(range(3), size)}
    variances: dict[str, tuple[float, float]] = {}
    together = squares[0, 1, 2][0]
    for axis, name in enumerate(FACTORS):
        pairs = [axes for axes in combinations(range(3), 2) if axis in axes]
        terms = [(1, squares[axis,]), *((-1, squares[pair]) for pair in pairs), (1, squares[0, 1, 2])]
        variances[name] = _combination(terms, grid.size / grid.shape[axis])
    for axes in combinations(range(3), 2):
        runs = grid.size / grid.shape[axes[0]] / grid.shape[axes[1]]
        together += max(0.0, (squares[axes][0] - squares[0, 1, 2][0]) / runs)
    return variances | {TOGETHER: (together, 0.0)}


def _mean_square(grid: Array, axes: tuple[int, ...]) -> tuple[float, float]:
    """Return the mean square of one effect or interaction with its degrees of freedom."""
    effect = grid
    for axis in range(grid.ndim):
        mean = effect.mean(axis=axis, keepdims=True)
        effect = effect - mean if axis in axes else mean
    freedom = np.prod([grid.shape[axis] - 1 for axis in axes])
    return float((effect**2).sum() * grid.size / effect.size / freedom), float(freedom)


def _combination(terms: Sequence[tuple[int, tuple[float, float]]], runs: float) -> tuple[float, float]:
    total = sum(sign * square for sign, (square, _) in terms)
    spread = sum(square**2 / freedom for _, (square, freedom) in terms)
    return (total / runs, total**2 / spread) if total > 0 else (0.0, 0.0)


def _rows(variances: Mapping[str, tuple[float, float]]) -> list[VarianceRow]:
    total = sum(variance for variance, _ in variances.values())
    return [
        VarianceRow(
            name, variance, variance**0.5, variance / total if total else 0.0, freedom, _interval(variance, freedom)
        )
        for name, (variance, freedom) in variances.items()
    ]


def _interval(variance: float, freedom: float) -> tuple[float, float] | None:
    """Return the interval of a standard deviation, from the chi-squared distribution of its square."""
    if freedom < 1 or variance == 0:
        return None
    low, high = (
        freedom * variance / float(chdtri(freedom, tail)) for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return low**0.5, high**0.5
