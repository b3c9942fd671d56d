"""Plans a sweep: which runs a command line means, what is wrong with it, what is already done. No torch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from lorta.config.compose import compose_cells
from lorta.config.grids import sweep_grids
from lorta.config.identity import earlier_runs
from lorta.config.launcher import SlurmSettings, choose_launcher
from lorta.config.overrides import Problems, parse_overrides
from lorta.planning.cells import CellPlanner
from lorta.planning.large_grids import check_values, is_large
from lorta.planning.lr_search import Results, check_seeds, search, searches_of, searching, tuned
from lorta.planning.questions import stated
from lorta.planning.seeds import bounds, up_to
from lorta.planning.spec import RunSpec
from lorta.planning.titles import typed_values
from lorta.records.sections import Question
from lorta.system.environment import environment_problems
from lorta.system.gpus import gpu_problems, gpus_here
from lorta.system.processor import has_fast_bf16
from lorta.system.terminal import counted


class Duplicates(NamedTuple):
    """How many cells resolved to a run that was planned already, and the settings that are not in a run: "X: rank"."""

    count: int = 0
    without_effect: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For the line that counts runs: empty where there are none."""
        if not self.count:
            return ""
        change = "changes" if self.count == 1 else "change"
        why = f", which {change} nothing: {'; '.join(self.without_effect)}" if self.without_effect else ""
        return f" ({counted(self.count, 'duplicate')} dropped{why})"


@dataclass(frozen=True)
class Plan:
    """The runs of a command line, each once, and the sentences that forbid running any of them.

    With tune=lr, `trials` come first; `waiting` are the runs whose rate they have not chosen yet.
    """

    specs: tuple[RunSpec, ...] = ()
    trials: tuple[RunSpec, ...] = ()
    waiting: tuple[tuple[RunSpec, str], ...] = ()  # with the rate they would have without trials, and what is missing
    unsupported: Mapping[str, str] = field(default_factory=dict[str, str])  # run id -> sentence
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # sentences that forbid nothing, about keys that have another name now
    duplicates: Duplicates = field(default_factory=Duplicates)
    launcher: SlurmSettings | None = None  # None: the runs are done here

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """Everything there is to run as far as it is known: trials, then what they were for."""
        return (*self.trials, *self.specs)


def make_plan(arguments: Sequence[str], multirun: bool, folder: Path) -> Plan:
    """Return the plan of a command line's overrides; `folder` is the absolute path of `conf`."""
    problems = Problems()
    for sentence in [*environment_problems(gpus_here()), *gpu_problems()]:
        problems.add(sentence)
    values = parse_overrides(arguments, multirun, folder, problems)
    launcher = choose_launcher(values, folder, problems)
    grids = sweep_grids(values, multirun, folder, problems)
    planner = CellPlanner(problems, folder)
    if is_large(grids):
        check_values(grids, folder, planner.spec, problems)
        if problems:
            return Plan(problems=tuple(problems))
    cells = [cell for grid in grids for cell in compose_cells(grid, folder, problems)]
    specs = [spec for cell in cells if (spec := planner.spec(cell)) is not None]
    if launcher is not None and any(spec.settings.runtime.timeout_s is not None for spec in specs):
        problems.add(
            "runtime.timeout_s: has no effect with hydra/launcher=slurm; give hydra.launcher.timeout_min instead"
        )
    if problems:
        return Plan(problems=tuple(problems))
    unique = named_as_before(_with_least_seeds(planned := _unique(specs), problems))
    if problems:
        return Plan(problems=tuple(problems))
    sentence_of = {cell: planner.sentence(spec) for cell, spec in _first_of_cells(unique).items()}
    sentences = {spec.run_id: sentence_of[spec.cell_id] for spec in unique}
    unsupported = {run_id: sentence for run_id, sentence in sentences.items() if sentence}
    questions = _stated(unique, problems)
    for sentence in check_seeds(unique):
        problems.add(sentence)
    if problems:  # of an adapter's formula, or of what is asked
        return Plan(problems=tuple(problems))
    unique = tuple(spec.labelled(questions=questions) for spec in unique)
    plan = Plan(
        unique,
        unsupported=unsupported,
        duplicates=_duplicates(specs, planned),
        launcher=launcher,
        notes=(*problems.notes, *_several_data_sets(unique), *_slow_precision(unique, launcher)),
    )
    if not any(searching(spec) for spec in plan.specs):
        return plan
    try:
        return _tuned(plan)
    except ValueError as error:
        return Plan(problems=tuple(str(error).splitlines()))


def _with_least_seeds(specs: Sequence[RunSpec], problems: Problems) -> Sequence[RunSpec]:
    """Return the runs, of a sweep that adds seeds with the least number of them."""
    try:
        least_and_most = bounds(specs)
    except ValueError as error:
        for sentence in str(error).splitlines():
            problems.add(sentence)
        return specs
    return specs if least_and_most is None else up_to(specs, {spec.cell_id: least_and_most[0] for spec in specs})


def _stated(specs: Sequence[RunSpec], problems: Problems) -> tuple[Question, ...]:
    try:
        return stated(specs, bounds(specs[:1]))
    except ValueError as error:
        for sentence in str(error).splitlines():
            problems.add(sentence)
        return ()


def _slow_precision(specs: Sequence[RunSpec], launcher: SlurmSettings | None) -> list[str]:
    """Return a sentence where bf16 is planned on this machine's processor, which computes it in software."""
    planned = any(spec.settings.trainer.precision == "bf16" for spec in specs)
    if launcher is not None or not planned or gpus_here() or has_fast_bf16() is not False:
        return []
    return [
        "trainer.precision=bf16: this processor has neither AVX512-BF16 nor AMX-BF16, so bf16 saves no time here and "
        "may cost some; trainer.precision=fp32 is as fast"
    ]


def scored_data(specs: Sequence[RunSpec]) -> dict[tuple[str, str], set[str | None]]:
    """Return (task, model) -> the fingerprints of the rows that are scored."""
    data_of: dict[tuple[str, str], set[str | None]] = {}
    for spec in specs:
        key = str(spec.settings.task["name"]), spec.settings.model.name
        data_of.setdefault(key, set()).add(spec.fingerprints.get("evaluation"))
    return data_of


def _several_data_sets(specs: Sequence[RunSpec]) -> list[str]:
    """Return a sentence for each task that is planned, for one model, on several data sets: no table can show both."""
    return [
        f"task={name} is planned on {len(data)} data sets, whose scores cannot share a table: give each a store of its "
        "own (data.root=A runtime.runs=runs-A)"
        for (name, _), data in scored_data(specs).items()
        if len(data) > 1
    ]


def _tuned(plan: Plan) -> Plan:
    """Return the plan with the trials that its cells need so far, and the rates of those whose search has ended.

    Raises ValueError where no run searches a rate that tune.task names.
    """
    first = _first_of_cells([spec for spec in plan.specs if spec.run_id not in plan.unsupported])
    chosen_by = searches_of(first)
    searches, results = {cell: search(first[cell]) for cell in dict.fromkeys(chosen_by.values())}, Results()
    while True:
        progress = {cell: of_cell.progress(results) for cell, of_cell in searches.items()}
        needed = _unique([trial for of in progress.values() for trial in of.trials])
        if all(results.knows(trial) for trial in needed):
            break
        results.add(named_as_before(needed))
    specs: list[RunSpec] = []
    waiting: list[tuple[RunSpec, str]] = []
    for spec in plan.specs:
        result = progress[chosen_by[spec.cell_id]].result if spec.cell_id in chosen_by else None
        if isinstance(result, str):
            waiting.append((spec, result))
        else:
            specs.append(spec if result is None else tuned(spec, result))
    trials = tuple(results.named(trial) for trial in needed)
    return replace(plan, specs=named_as_before(specs), trials=trials, waiting=tuple(waiting))


def _first_of_cells(specs: Sequence[RunSpec]) -> dict[str, RunSpec]:
    """Return the first run of each cell, in the order of the cells: what is true of it is true of all its seeds."""
    first: dict[str, RunSpec] = {}
    for spec in specs:
        first.setdefault(spec.cell_id, spec)
    return first


def _unique(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """Return each run once, with all the budgets that led to it."""
    unique: dict[str, RunSpec] = {}
    for spec in specs:
        earlier = unique.get(spec.signature)
        budgets = tuple(dict.fromkeys((*(earlier.budgets if earlier else ()), *spec.budgets)))
        unique[spec.signature] = spec if earlier is None else replace(earlier, budgets=budgets)
    return list(unique.values())


def _duplicates(specs: Sequence[RunSpec], planned: Sequence[RunSpec]) -> Duplicates:
    kept = {spec.signature: spec for spec in reversed(specs)}  # the first of each
    words: dict[str, None] = {}
    for spec in specs if len(planned) < len(specs) else ():
        one, other = typed_values(spec.overrides), typed_values(kept[spec.signature].overrides)
        for key in sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key)):
            words[f"{key} of {spec.settings.adapter['name']}"] = None
    return Duplicates(len(specs) - len(planned), tuple(words))


def named_as_before(specs: Sequence[RunSpec]) -> tuple[RunSpec, ...]:
    """Return the runs; one that its store has finished under an older identity keeps the name it has there."""
    wanted = [spec for spec in specs if not spec.settings.runtime.force]
    there = {
        root: set(os.listdir(root)) if os.path.isdir(root) else ()
        for root in {spec.settings.runtime.runs for spec in wanted}
    }
    missing = [spec for spec in wanted if spec.run_id not in there[spec.settings.runtime.runs]]
    own = frozenset(spec.signature for spec in specs)
    roots = {Path(spec.settings.runtime.runs) for spec in missing}
    earlier = {root: earlier_runs(root, own) for root in roots}
    names = {spec.signature: earlier[Path(spec.settings.runtime.runs)].get(spec.signature) for spec in missing}
    return tuple(spec.labelled(earlier_id=name) if (name := names.get(spec.signature)) else spec for spec in specs)
