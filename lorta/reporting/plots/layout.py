"""Where marks and labels of a figure go, so that none hides another. Pure functions; no plotting library."""

import math
from collections.abc import Sequence

BESIDE = 0.02  # of an axis: points that are nearer than that are drawn side by side, so far apart


def side_by_side(xs: Sequence[float], log: bool) -> list[float]:
    """Return places of points on an axis; those of nearly equal x are spread around their middle, in order."""
    places = [math.log(x) if log else x for x in xs]
    gap = BESIDE * ((max(places) - min(places)) or (1.0 if log else max(map(abs, places)) or 1.0)) if places else 0.0
    order = sorted(range(len(places)), key=lambda number: (places[number], number))
    groups: list[list[int]] = []
    for number in order:
        if groups and places[number] - places[groups[-1][0]] < gap:
            groups[-1].append(number)
        else:
            groups.append([number])
    drawn = list(xs)
    for group in (group for group in groups if len(group) > 1):
        middle = sum(places[number] for number in group) / len(group)
        for place, number in enumerate(sorted(group)):
            moved = middle + gap * (place - (len(group) - 1) / 2)
            drawn[number] = math.exp(moved) if log else moved
    return drawn


def kept_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, in the same order and at least `gap` apart, between `low` and `high`.

    Where they do not fit, they are evenly spread.
    """
    order = sorted(range(len(wanted)), key=lambda number: (wanted[number], number))
    if not order:
        return []
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    blocks: list[tuple[list[int], float]] = []  # numbers, and where the lowest of them is
    for number in order:
        numbers, start = [number], min(max(wanted[number], low), high)
        while blocks and blocks[-1][1] + gap * len(blocks[-1][0]) > start:
            numbers = [*blocks.pop()[0], *numbers]
            ideal = sum(wanted[of] - gap * place for place, of in enumerate(numbers)) / len(numbers)
            start = min(max(ideal, low), high - gap * (len(numbers) - 1))
        blocks.append((numbers, start))
    places = [0.0] * len(wanted)
    for numbers, start in blocks:
        for place, number in enumerate(numbers):
            places[number] = min(max(start, low), high - gap * (len(numbers) - 1)) + gap * place
    return places
