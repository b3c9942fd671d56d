"""Parameter budgets: the rank, or what else a method leaves free, whose closed-form count is nearest to the one asked.

A count is of everything that is trained except the head: adapter weights, and the normalisation layers of a method that
trains them too. No torch: sizes are solved while a sweep is planned.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

from lorta.api.adapter import Adapter
from lorta.config.compose import Cell
from lorta.config.instantiate import build
from lorta.geometry import Geometry, ModelContext
from lorta.records.sections import Budget

LARGEST = 2**17  # rank looked at
NEIGHBOURS = 16  # values looked at on both sides of a crossing: rules of divisibility, counts that are no smooth curve
Sizes = dict[int, int | None]  # value -> count
Count = Callable[[int], int | None]


def free_key(adapter: Adapter) -> str | None:
    """Return the key that decides a method's size: its YAML's `budget_param`, else the rank, None without one."""
    return getattr(adapter, "budget_param", None) or ("rank" if adapter.rank is not None else None)


def solve(cell: Cell, adapter: Adapter, context: ModelContext, requested: int, sizes: Sizes | None = None) -> Budget:
    """Return the size of the cell's adapter whose count of weights is nearest to what was requested.

    `sizes` keeps counts from one budget to the next, of one adapter on one geometry.

    Raises ValueError where the command line sets what the budget decides, and for a `budget_param` that names no key.
    """
    key, other = free_key(adapter), other_count(adapter, context.geometry)

    def method(value: int) -> Adapter:
        return build(cell.node("adapter", str(key), value))

    def count(value: int) -> int | None:
        try:
            own = method(value).parameters(context.geometry)
            return own + (other or 0) if own else None  # without a weight of its own it is no method
        except (ValueError, ArithmeticError):  # a value that the method cannot take
            return None

    def allowed(value: int) -> bool:
        return count(value) is not None and method(value).unsupported(context) is None

    if key is not None and any(override.startswith(f"{key}=") for override in cell.overrides):
        raise ValueError(
            f"budget={requested} and {key} contradict: the budget decides {key} of adapter={adapter.name}, "
            "leave one out"
        )
    if key is not None and not cell.has(key):
        raise ValueError(f"adapter.budget_param={key}: no such key; write it as adapter.config.NAME, or leave it null")
    value = None if key is None else nearest(count, allowed, requested, {} if sizes is None else sizes)
    own = adapter_count(adapter, context.geometry) if value is None else None
    achieved = count(value) if value is not None else None if own is None else own + (other or 0)
    return Budget(
        asked=requested,
        achieved=achieved,
        distance=None if achieved is None else achieved / requested - 1,
        key=key if value else None,
        value=value,
        counts="adapter" if other is None else "trained",
        other=other or 0,
    )


def other_count(adapter: Adapter, geometry: Geometry) -> int | None:
    """Return what a method trains besides its own weights and the head; None where the geometry does not tell."""
    counted = getattr(adapter, "other_parameters", None)
    return 0 if counted is None else counted(geometry)


def adapter_count(adapter: Adapter, geometry: Geometry) -> int | None:
    """Return the closed-form count, None where there is none or the adapter cannot attach."""
    try:
        return adapter.parameters(geometry)
    except ValueError:
        return None


def nearest(count: Count, allowed: Callable[[int], bool], asked: int, sizes: Sizes) -> int | None:
    """Return the allowed value of 1 to LARGEST whose count is nearest to `asked`, the smallest of equal ones.

    None where the count does not depend on the value, or no value looked at is allowed. `count` may rise, fall, or have
    steps: all of its crossings between powers of two are found, and what is near them is tried. What was counted is
    kept in `sizes`.
    """

    def size(value: int) -> int | None:
        if value not in sizes:
            sizes[value] = count(value) if 1 <= value <= LARGEST else None
        return sizes[value]

    powers = [2**power for power in range(LARGEST.bit_length())]
    if len({size(power) for power in powers} - {None}) < 2:
        return None
    tried = {power: _miss(size(power), asked) for power in powers}
    for low, high in pairwise(powers):
        for value in _near_crossing(size, low, high, asked):
            tried[value] = _miss(size(value), asked)
    best = next((value for value, _ in sorted(tried.items(), key=_by_miss) if allowed(value)), None)
    if best is None or size(best) is None:
        return None
    best = _climb(lambda value: _miss(size(value), asked), allowed, best)
    return _smallest_of_its_size(size, allowed, best)


def _miss(size: int | None, asked: int) -> float:
    return float("inf") if size is None else abs(size - asked)


def _by_miss(item: tuple[int, float]) -> tuple[float, int]:
    return item[1], item[0]


def _near_crossing(size: Count, low: int, high: int, asked: int) -> Iterable[int]:
    """Return the values around the one between two bounds where the count passes what is asked; none where it stays."""
    first, last = size(low), size(high)
    if first is None or last is None or (first < asked) == (last < asked):
        return ()
    while high - low > 1:
        middle = (low + high) // 2
        if ((size(middle) or 0) < asked) == (first < asked):
            low = middle
        else:
            high = middle
    return range(max(1, low - NEIGHBOURS), min(LARGEST, high + NEIGHBOURS) + 1)


def _climb(miss: Callable[[int], float], allowed: Callable[[int], bool], best: int) -> int:
    """Return a value at least as near, by ever smaller steps: an upper bound of the rank may cut a crossing off."""
    step = best // 2
    while step:
        nearer = [v for v in (best - step, best + step) if miss(v) < miss(best) and allowed(v)]
        if nearer:
            best = min(nearer, key=miss)
        else:
            step //= 2
    return best


def _smallest_of_its_size(size: Count, allowed: Callable[[int], bool], value: int) -> int:
    """Return the start of a step of equal counts, so that what is recorded is what the method uses."""
    low, high = 0, value
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) == size(value) else (middle, high)
    return high if allowed(high) else value
