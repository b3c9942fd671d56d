"""seeds=auto: runs with the least number of seeds first, and more for the questions that are still open. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorta.config.identity import SEEDS, SEPARATE_SEEDS
from lorta.config.settings import SEED_BOUND
from lorta.planning.spec import RunSpec

MOST = 100  # seeds of a cell: the rule that looks after each of them is worked out for so many

NONE = (None, None)


def adds_seeds(spec: RunSpec) -> bool:
    """Return whether the number of the run's seeds depends on results."""
    return spec.settings.seeds is not None and spec.settings.seeds.until == "decided"


def adds_to(specs: Sequence[RunSpec]) -> bool:
    """Return whether seeds are added to a sweep as results come."""
    return any(map(adds_seeds, specs))


def bounds(specs: Sequence[RunSpec]) -> tuple[int, int] | None:
    """Return the least and the most number of seeds of a sweep, None where seeds are listed.

    Raises ValueError, a line a problem, for numbers that cannot be, for `seed` with several values, and without a
    question to decide.
    """
    adding = [spec.settings.seeds for spec in specs if adds_seeds(spec)]
    if not adding:
        if any(spec.settings.seeds and (spec.settings.seeds.least, spec.settings.seeds.most) != NONE for spec in specs):
            raise ValueError("seeds.least and seeds.most: have no effect without seeds=auto")
        return None
    if len(adding) < len(specs):
        raise ValueError("seeds: one rule for the whole sweep, auto or fixed")
    rule, problems = adding[0], list[str]()
    assert rule is not None
    if rule.least is None or rule.most is None or not 2 <= rule.least <= rule.most <= MOST:
        problems.append(
            f"seeds.least={rule.least} and seeds.most={rule.most}: 2 <= least <= most <= {MOST} is needed, such as "
            "3 and 10"
        )
    if len({spec.settings.seed for spec in specs}) > 1:
        problems.append("seeds=auto and several values of seed contradict: seeds=auto chooses them, leave seed out")
    separate = [name for name in SEPARATE_SEEDS if any(getattr(spec.settings, name) is not None for spec in specs)]
    if separate:
        problems.append(
            f"seeds=auto and {' and '.join(separate)} contradict: runs with separate seeds are in no table, so that no "
            "question can be decided; leave out one of the two"
        )
    if any(spec.settings.compare is None for spec in specs):
        problems.append(
            "seeds=auto adds seeds until the study's questions are decided, and there is none: state one, "
            "as in 'compare={method:lorta,with:lora,margin:1.0}'"
        )
    if problems:
        raise ValueError("\n".join(problems))
    assert rule.least is not None and rule.most is not None
    return rule.least, rule.most


def up_to(specs: Sequence[RunSpec], counts: Mapping[str, int]) -> list[RunSpec]:
    """Return the runs, and those of further seeds until each cell has its number; `counts` are by cell id.

    New seeds follow the first one of their cell.
    """
    cells: dict[str, list[RunSpec]] = {}
    for spec in specs:
        cells.setdefault(spec.cell_id, []).append(spec)
    return [run for cell, runs in cells.items() for run in _cell(runs, counts.get(cell, 0))]


def with_seed(spec: RunSpec, seed: int) -> RunSpec:
    """Return the run with another seed, as if that had been typed."""
    typed = [word for word in spec.overrides if not word.startswith("seed=")]
    return spec.with_seeds({"seed": seed}, (*typed, f"seed={seed}"))


def _cell(runs: Sequence[RunSpec], count: int) -> list[RunSpec]:
    first, known = runs[0].settings.seed, {spec.settings.seed for spec in runs}
    more = [seed for seed in range(first, first + count) if seed not in known]
    return [*runs, *(with_seed(runs[0], seed) for seed in more)]


def seeds_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seeds of a configuration by their names."""
    return {name: config[name] for name in SEEDS if name in config}


def valid(seeds: Mapping[str, Any]) -> bool:
    """Return whether a configuration may have these seeds, by their names."""
    return all(
        (seed is None and name in SEPARATE_SEEDS) or (type(seed) is int and 0 <= seed < SEED_BOUND)
        for name, seed in seeds.items()
    )


def with_typed_seeds(overrides: Sequence[str], typed: Sequence[str]) -> tuple[str, ...]:
    """Return a sibling's overrides with the seeds that were typed."""
    words = {word.partition("=")[0]: word for word in typed}
    return tuple(words.get(name, word) if (name := word.partition("=")[0]) in SEEDS else word for word in overrides)
