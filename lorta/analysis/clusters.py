"""Items that belong together: how much of the variance of a mean over items their choice adds, cluster by cluster.

Items of one passage, one conversation or one protein family are drawn together, so their deviations are added before
they are squared (Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference", section II). An item
without a cluster is a cluster of its own; where all items are, everything here is the usual variance of a mean.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class ItemVariance(NamedTuple):
    """Variance of a mean over seeds and items, by cause; each value has the leading shape of the items, (...)."""

    items: Array  # items alone, at least 0
    interaction: Array  # what a seed and an item do together
    freedom: float  # degrees of freedom of `items`
    interaction_freedom: float


def cluster_codes(labels: Sequence[Hashable | None]) -> Array:
    """Return a number for each item, (items,), the same for equal labels; an item labelled None has its own."""
    numbers: dict[Hashable, int] = {}
    keys = [("alone", place) if label is None else ("label", label) for place, label in enumerate(labels)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def common_clusters(items: Sequence[object]) -> Array | None:
    """Return the clusters, (items,), of all runs' scores of rows (`item_scores.Items`), None where they are not alike.

    One cluster of all items says nothing of another one: then each item is its own, as without clusters.
    """
    named = {getattr(of_run, "clusters", None) for of_run in items}
    (clusters,) = named if len(named) == 1 else (None,)
    return np.array(clusters, dtype=np.intp) if clusters and len(set(clusters)) > 1 else None


def cluster_sums(values: Array, codes: Array | None) -> Array:
    """Return the sums of (..., items) over clusters, (..., clusters), or the values themselves without codes."""
    if codes is None:
        return values
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def cluster_shares(count: int, codes: Array | None) -> Array:
    """Return the share of each cluster in `count` items, (clusters,). Raises ValueError for other items' codes."""
    if codes is None:
        return np.full(count, 1 / count)
    if codes.shape != (count,):
        raise ValueError(f"clusters must name one cluster for each of {count} items, got {len(codes)}.")
    return cluster_sums(np.ones(count), codes) / count


def small_sample_factor(shares: Array) -> float:
    """Return the part of the variance that deviations from the sample's own mean still show, from 0 to 1.

    1 - 1 / n for n equal clusters; for unequal ones the expectation where items of a cluster are alike:
    1 - 2 sum(w^3) / sum(w^2) + sum(w^2), with w the shares.
    """
    squares = float((shares**2).sum())
    return 1 - 2 * float((shares**3).sum()) / squares + squares


def cluster_freedom(shares: Array) -> float:
    """Return the degrees of freedom of a variance over clusters: n - 1 for n equal ones, fewer if some are larger.

    The variance is a quadratic form u'Au of the clusters' effects, with A = D - q w' - w q' + sum(w^2) w w', w the
    shares, q their squares and D = diag(q); its freedom is trace(A)^2 / trace(A A) (Satterthwaite 1946; Bell and
    McCaffrey 2002, Survey Methodology 28, 169-181).
    """
    second, third, fourth, fifth = (float((shares**power).sum()) for power in (2, 3, 4, 5))
    trace = second - 2 * third + second**2
    of_square = fourth + 2 * third**2 + 4 * second * fourth + second**4 - 4 * fifth - 4 * second**2 * third
    return trace**2 / of_square


def item_variance(items: Array, codes: Array | None = None) -> ItemVariance:
    """Return what the choice of items adds to the variance of the mean of (..., seeds, items), in squared units.

    The mean squares of a crossed analysis of variance (Searle, Casella and McCulloch 1992, section 4.3), with sums over
    clusters in the place of items; one seed shows no interaction. Raises ValueError for fewer than two clusters.
    """
    seeds, count = items.shape[-2:]
    shares = cluster_shares(count, codes)
    if len(shares) < 2:
        raise ValueError(
            f"a variance over items needs two clusters of them at least, got {len(shares)} in {count} items."
        )
    by_item = items.mean(axis=-2)
    effects = by_item - by_item.mean(axis=-1, keepdims=True)
    rest = items - items.mean(axis=-1, keepdims=True) - effects[..., None, :]
    scale = count**2 * small_sample_factor(shares)
    spread = (cluster_sums(effects, codes) ** 2).sum(axis=-1) / scale
    interaction = (cluster_sums(rest, codes) ** 2).sum(axis=(-2, -1)) / scale / max(seeds - 1, 1) / seeds
    freedom = cluster_freedom(shares)
    return ItemVariance(np.maximum(spread - interaction, 0.0), interaction, freedom, freedom * max(seeds - 1, 1))
