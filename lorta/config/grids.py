"""What a recipe sweeps: one grid of values, or a list of them for methods that need settings of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorta.config.choices import group_file
from lorta.config.overrides import Problems, Values, parse_overrides
from lorta.config.yaml_files import read_mapping


def sweep_grids(values: Values, multirun: bool, folder: Path, problems: Problems) -> list[Values]:
    """Return the grids of a command line: what the chosen experiment sweeps (`sweep`), under what was typed.

    A recipe with several grids has a list there, one for each group of methods. What is typed wins in all of them, but
    `adapter` chooses the grids of its methods. `sweep=null` leaves all grids out: only what is typed is run.
    """
    planned: list[Values] = []
    for choice in values.get("experiment", [None]):
        typed = values | {"experiment": [choice]} if choice is not None else values
        tables = [{}] if values.get("sweep") == [None] else _sweep_tables(folder, choice)
        if not multirun:
            planned.append(typed)
            if len(tables) > 1:
                problems.add(f"experiment={choice}: it is {len(tables)} grids of runs, which need -m (a sweep)")
            continue
        grids = [_grid(table, typed, len(tables) > 1, folder, problems) for table in tables]
        planned += [grid for grid in grids if grid is not None]
        if not any(grid is not None for grid in grids):
            known = ", ".join(dict.fromkeys(str(table["adapter"]) for table in tables))
            asked = ",".join(map(str, values["adapter"]))
            problems.add(f"adapter={asked}: experiment={choice} has no grid of it; it has: {known}")
    return planned


def _sweep_tables(folder: Path, experiment: Any) -> list[Mapping[str, Any]]:
    if experiment is None:
        return [{}]
    table = read_mapping(group_file(folder, "experiment", experiment)).get("sweep", {})
    return table if isinstance(table, list) else [table]


def _grid(table: Mapping[str, Any], typed: Values, several: bool, folder: Path, problems: Problems) -> Values | None:
    """Return a recipe's grid under what was typed; None where its methods are not among those typed."""
    replaced = {"budget": "rank", "seeds": "seed"}  # what is typed -> what it chooses instead of a recipe
    given = {*typed, *(chosen for key, chosen in replaced.items() if key in typed)}
    chosen: Values = {}
    if several and "adapter" in table and "adapter" in typed:
        own = parse_overrides([f"adapter={table['adapter']}"], True, folder, problems)["adapter"]
        chosen["adapter"] = [name for name in typed["adapter"] if name in own]
        if not chosen["adapter"]:
            return None
    words = [f"{key}={value}" for key, value in table.items() if key not in given]
    return parse_overrides(words, True, folder, problems) | typed | chosen
