"""Large grids: what is wrong with a value is known before its thousands of combinations are made."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from lorta.config.compose import Cell, check_keys, combinations_of_choices, compose_cells
from lorta.config.overrides import Problems, Values

LARGE = 200  # cells: from here on, values are checked before their combinations
FEW = 10  # compositions, each of them 20 ms: so many are checked although something is wrong already


def is_large(grids: Sequence[Values]) -> bool:
    """Return whether values are to be checked first."""
    return sum(math.prod(map(len, grid.values())) for grid in grids) > LARGE


def check_values(grids: Sequence[Values], folder: Path, check: Callable[[Cell], object], problems: Problems) -> None:
    """Check small parts of large grids that have each of their values; `check` adds to the problems, too.

    Parts with many compositions (every adapter) come last. Where there is a problem before, only keys are looked for
    in them, and only those that their choices bring, such as `adapter.config.alpha`.
    """
    parts = [
        ({**{other: values[:1] for other, values in grid.items()}, key: values}, f"{key}.")
        for grid in grids
        for key, values in grid.items()
    ]
    for part, prefix in sorted(parts, key=lambda part: combinations_of_choices(part[0], folder)):
        if not problems or combinations_of_choices(part, folder) <= FEW:
            for cell in compose_cells(part, folder, problems):
                check(cell)
        elif any(key.startswith(prefix) for key in part):
            check_keys(part, folder, problems)
