"""Print how often the verdicts of simulated studies are false, and how many seeds they take.

`python -m benchmarks.verdicts`; each line is 2,000 studies (docs/statistics.md). The margin is 1 point, but tiny where
false differences are counted: a wide one would hide them behind equivalence.
"""

import numpy as np

from lorta.analysis.clusters import item_variance
from lorta.analysis.equivalence import Difference, half_width
from lorta.analysis.sequential import SeedPlan
from lorta.analysis.simulation import STUDIES, World, simulate

PLANS = [SeedPlan(3, 3), SeedPlan(5, 5), SeedPlan(10, 10), SeedPlan(3, 10)]
WORLDS = {
    "seeds differ by 0.4": {"by_seed": 0.4},
    "answers differ, at random": {"by_seed": 0.0, "together": 4.0, "items": 60},
    "items differ, seeds hardly": {"by_seed": 0.1, "by_item": 3.0, "items": 60},
    "all three": {"by_seed": 0.3, "by_item": 2.0, "together": 2.0, "items": 60},
}
DEVIATIONS = (0.3, 0.6, 1.2)
DIFFERENCES = (0.0, 0.5, 1.5, 3.0)
NO_MARGIN = 1e-3
SIZES = {"20 clusters of 6": [6] * 20, "20 unequal clusters": [30, 20, 15, 10, 8, 6, 5, 4, 3, 2, *[1] * 10]}


def name(plan: SeedPlan) -> str:
    """Return the seeds of a plan in words."""
    return f"{plan.least}" if plan.least == plan.most else f"{plan.least} to {plan.most}"


def print_errors() -> None:
    """Print false verdicts where methods are equal, and where they differ by exactly the margin."""
    print("| what varies | seeds | false better or worse, % | false equivalent, % |\n|---|---|---|---|")
    for what, world in WORLDS.items():
        for plan in PLANS:
            apart = simulate(World(0.0, **world), NO_MARGIN, plan).false
            alike = simulate(World(1.0, **world), 1.0, plan).false
            print(f"| {what} | {name(plan)} | {100 * apart:.1f} | {100 * alike:.1f} |")


def print_seeds() -> None:
    """Print what is decided, and by how many seeds, for a margin of 1 point."""
    header = "true difference | deviation between seeds | seeds, 3 to 10 | decided, % | decided by 10, % | by 5, %"
    print(f"\n| {header} |\n|---|---|---|---|---|---|")
    for deviation in DEVIATIONS:
        for difference in DIFFERENCES:
            auto, ten, five = (
                simulate(World(difference, deviation), 1.0, plan)
                for plan in (SeedPlan(3, 10), SeedPlan(10, 10), SeedPlan(5, 5))
            )
            shares = " | ".join(f"{100 * of.decided:.0f}" for of in (auto, ten, five))
            print(f"| {difference} | {deviation} | {auto.seeds:.1f} | {shares} |")


def print_clusters() -> None:
    """Print false differences of five seeds whose items come in clusters of like ones."""
    print("\n| items | false better or worse with clusters, % | without, % |\n|---|---|---|")
    for what, sizes in SIZES.items():
        generator, codes = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
        items = np.repeat(generator.normal(0, 8, (STUDIES, 1, len(sizes))), sizes, axis=-1)
        items = items + generator.normal(0, 4, (STUDIES, 5, len(codes)))
        differences = [Difference(items.mean(axis=-1), item_variance(items, of)) for of in (codes, None)]
        shares = [100 * np.mean(np.abs(of.mean) > half_width(of, 0.025)) for of in differences]
        print(f"| {what} | {shares[0]:.1f} | {shares[1]:.1f} |")


if __name__ == "__main__":
    print_errors()
    print_seeds()
    print_clusters()
