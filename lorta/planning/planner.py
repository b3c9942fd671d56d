"""Plans a sweep: which runs a command line means, what is wrong with it, what is already done. No torch."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorta.api.adapter import Adapter
from lorta.api.task import DataPlan, Task
from lorta.config.choices import choice_words
from lorta.config.compose import ALONE, Cell, compose_cells
from lorta.config.grids import sweep_grids
from lorta.config.identity import earlier_runs
from lorta.config.instantiate import build
from lorta.config.launcher import SlurmSettings, choose_launcher
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.ranges import projection_problems, range_problems
from lorta.config.settings import RunSettings, setting_problems
from lorta.config.signatures import node_problems
from lorta.geometry import Geometry
from lorta.models.locate import ModelFiles, find_model
from lorta.planning.budget import Sizes, solve
from lorta.planning.large_grids import check_values, is_large
from lorta.planning.lr_search import Results, check_rate, check_seeds, search, searching, tuned
from lorta.planning.questions import stated
from lorta.planning.seeds import bounds, seeds_of, up_to, valid, with_typed_seeds
from lorta.planning.spec import RunSpec
from lorta.records.canonical import canonical_json, not_finite
from lorta.records.sections import Budget, Question
from lorta.system.environment import environment_problems
from lorta.system.gpus import gpu_problems, gpus_here
from lorta.system.processor import has_fast_bf16


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
    duplicates: int = 0  # cells that resolved to a run already planned
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
    planner = _Planner(problems, folder)
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
        duplicates=len(specs) - len(planned),
        launcher=launcher,
        notes=(*problems.notes, *_several_data_sets(unique), *_slow_precision(unique, launcher)),
    )
    return _tuned(plan) if any(searching(spec) for spec in plan.specs) else plan


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


def _several_data_sets(specs: Sequence[RunSpec]) -> list[str]:
    """Return a sentence for each task that is planned, for one model, on several data sets: no table can show both."""
    data_of: dict[tuple[str, str], set[str | None]] = {}
    for spec in specs:
        key = str(spec.settings.task["name"]), spec.settings.model.name
        data_of.setdefault(key, set()).add(spec.fingerprints.get("evaluation"))
    return [
        f"task={name} is planned on {len(data)} data sets, whose scores cannot share a table: give each a store of its "
        "own (data.root=A runtime.runs=runs-A)"
        for (name, _), data in data_of.items()
        if len(data) > 1
    ]


def _tuned(plan: Plan) -> Plan:
    """Return the plan with the trials that its cells need so far, and the rates of those whose search has ended."""
    able = [spec for spec in plan.specs if spec.run_id not in plan.unsupported]
    searches, results = {cell: search(spec) for cell, spec in _first_of_cells(able).items()}, Results()
    while True:
        progress = {cell: of_cell.progress(results) for cell, of_cell in searches.items()}
        needed = _unique([trial for of in progress.values() for trial in of.trials])
        if all(results.knows(trial) for trial in needed):
            break
        results.add(named_as_before(needed))
    specs: list[RunSpec] = []
    waiting: list[tuple[RunSpec, str]] = []
    for spec in plan.specs:
        result = progress[spec.cell_id].result if spec.cell_id in progress else None
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


class _Planner:
    """Resolves cells; every adapter, model and task node is looked at once however many cells share it."""

    def __init__(self, problems: Problems, folder: Path) -> None:
        self.problems, self._folder = problems, folder
        self._made: dict[str, Any] = {}
        self._siblings: dict[int, RunSpec | None] = {}

    def spec(self, cell: Cell) -> RunSpec | None:
        """Return the run of a cell, or None when there is a sentence about it."""
        if cell.siblings == ALONE or not valid(seeds := seeds_of(cell.config)):
            return self._first(cell)
        if cell.siblings not in self._siblings:
            self._siblings[cell.siblings] = self._first(cell)
            return self._siblings[cell.siblings]
        first = self._siblings[cell.siblings]
        return first and first.with_seeds(seeds, with_typed_seeds(first.overrides, cell.overrides))

    def _first(self, cell: Cell) -> RunSpec | None:
        """Return the run of a cell, of which no sibling is known."""
        settings = self._settings(cell.config)
        if settings is None:
            return None
        for group, node in {"adapter": settings.adapter, "task": settings.task}.items():
            if key := not_finite(node, group):
                self.problems.add(f"{key}: NaN and infinity are no settings, give a finite number")
                return None
        adapter: Adapter | None = self._once("adapter", settings.adapter, lambda: self._built("adapter", cell, build))
        if "task" in self.problems.replaced:  # nothing can be said of a task that is not there
            return None
        built: Task | None = self._once("task", settings.task, lambda: self._built("task", cell, _built_task))
        model_key = settings.model.model_dump()
        model: ModelFiles | None = self._once("model", model_key, lambda: find_model(settings.model))
        if built is None:
            return None
        data_key = {"task": settings.task, "data": settings.data.model_dump(), "default": settings.model.data}
        data: DataPlan | None = self._once("data", data_key, lambda: _plan_data(built, settings))
        task = built if data is None else built.with_labels(data.labels)
        for sentence in data.notes if data else ():
            self.problems.note(sentence)
        typed = {"task": settings.task, "typed": cell.overrides}
        self._once("rate", typed, lambda: _check_search(task, settings, cell))
        if model is None:
            return None
        geometry_key = {"model": model_key, "task": settings.task}
        geometry = self._once("geometry", geometry_key, lambda: _geometry(task, model, settings.model.name))
        if adapter is None or geometry is None or data is None:
            return None
        spec = RunSpec(settings, adapter, task, data, model, geometry, cell.overrides, cell.choices)
        return spec if settings.budget is None else self._solved(cell, spec)

    def _built(self, group: str, cell: Cell, make: Callable[[Mapping[str, Any]], Any]) -> Any:
        """Return what a node is made into. Raises ValueError with the choice and, of a user's own, the file."""
        node = cell.config[group]
        where = self._words(group, cell.choices, node.get("name"))
        try:
            if sentences := _wrong_keys(node):
                raise ValueError("\n".join(sentences))
            return make(node)
        except ValueError as error:
            raise ValueError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error

    def _words(self, group: str, choices: Mapping[str, str], name: Any) -> str:
        """Return how a sentence names an adapter or task: as it was chosen, or the default by its name."""
        return choice_words(self._folder, group, choices.get(group) or str(name))

    def _settings(self, config: Mapping[str, Any]) -> RunSettings | None:
        try:
            return RunSettings.model_validate(config)
        except ValidationError as error:
            for sentence in setting_problems(error):
                self.problems.add(sentence)
        return None

    def _solved(self, cell: Cell, spec: RunSpec) -> RunSpec | None:
        """Return the run of the size nearest to the cell's budget: the one that typing its rank gives."""
        settings = spec.settings
        keys = [word.partition("=")[0] for word in cell.overrides]
        method = {"adapter": settings.adapter, "typed": keys, "context": repr(spec.context)}
        sizes: Sizes = self._once("sizes", method, dict)
        count = settings.budget
        assert count is not None
        solved_for = method | {"budget": count}
        budget: Budget | None = self._once(
            "budget", solved_for, lambda: solve(cell, spec.adapter, spec.context, count, sizes)
        )
        if budget is None:
            return None
        typed = [override for override in cell.overrides if not override.startswith("budget=")]
        adapter: Adapter | None = spec.adapter
        if budget.key is not None:
            typed.append(f"{budget.key}={budget.value}")
            solved = self._settings(cell.with_value(budget.key, budget.value)) or settings
            adapter = self._once("adapter", solved.adapter, lambda: build(solved.adapter))
            settings = solved
        if adapter is None:
            return None
        return replace(spec, settings=settings, adapter=adapter, overrides=tuple(typed), budgets=(budget,))

    def sentence(self, spec: RunSpec) -> str | None:
        """Return why the run's adapter cannot attach to its model for its task, or the model does not fit, or None."""
        adapter, task, geometry = spec.adapter, spec.task, spec.geometry
        if task.peft_task_type == "CAUSAL_LM" and not geometry.architecture.causal:
            return f"task={task.name} needs a decoder, {geometry.model_type} is none: model=tiny_llama, for example."
        model = spec.settings.model
        if model.quantization is not None and not task.supports_quantization:
            return f"task={task.name} has no {model.quantization} models: set model.quantization=null."
        if task.compares_with_backbone and not (adapter.identity_at_start or adapter.reversible):
            return f"{adapter.name} changes the backbone for good, and task={task.name} compares with it."
        try:
            reason = adapter.unsupported(spec.context)
            if reason is None:
                adapter.parameters(geometry)
            return reason
        except ValueError as error:  # an expression of its YAML has no value for these settings
            self.problems.add(f"{self._words('adapter', spec.choices, adapter.name)}: {error}")
            return None

    def _once(self, kind: str, node: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Return what `make` makes of a node, once; None where it raised: its sentences are then problems."""
        key = f"{kind} {canonical_json(node)}"
        if key not in self._made:
            self._made[key] = None
            try:
                self._made[key] = make()
            except ValueError as error:
                for sentence in str(error).splitlines():
                    self.problems.add(sentence)
        return self._made[key]


def _wrong_keys(node: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the keys of an adapter or task, and of the PEFT configuration in it."""
    sentences, config = node_problems(node) + range_problems(node) + projection_problems(node), node.get("config")
    if isinstance(config, Mapping):
        of_config = node_problems(config, tuple(node.get("derived") or ())) or range_problems(config)
        sentences += [f"config: {sentence}" for sentence in of_config]
    return sentences


def _built_task(node: Mapping[str, Any]) -> Task:
    """Return a task that scores by its primary metric, as its run would say at its end."""
    task: Task = build(node)
    if task.primary not in (metrics := task.score([])):
        raise ValueError(f"task.primary={task.primary}: task={task.name} has the metrics {', '.join(metrics)}")
    return task


def _check_search(task: Task, settings: RunSettings, cell: Cell) -> None:
    """Raise ValueError for a task without rows to hold out, and for a rate that is both typed and searched."""
    tune = settings.tune
    searched = tune is not None and tune.search is not None
    if (searched or settings.data.holdout is not None) and not task.supports_holdout:
        asks = "tune=lr" if searched else f"data.holdout={settings.data.holdout}"
        raise ValueError(f"task={task.name} cannot score rows of its training split, which {asks} needs: leave it out")
    fraction = isinstance(settings.data.holdout, float)
    if fraction and not task.splits_a_file:
        raise ValueError(
            f"data.holdout={settings.data.holdout}: task={task.name} has a split to score: give a number of rows"
        )
    if searched and fraction:
        raise ValueError("tune=lr needs a file validation beside train, not data.holdout: trials hold rows out as well")
    if searched and settings.data.holdout is not None:
        raise ValueError("tune=lr and data.holdout contradict: trials hold rows out (tune.holdout), leave one out")
    if searched:
        check_rate(settings, cell.overrides)


def _geometry(task: Task, files: ModelFiles, name: str) -> Geometry:
    try:
        return task.geometry(files.config)
    except (ValueError, KeyError) as error:
        raise ValueError(f"model={name}: {error}") from error


def _plan_data(task: Task, settings: RunSettings) -> DataPlan:
    """Return the data plan, with the rows that caps leave out counted."""
    plan = task.plan_data(settings.data, settings.model.data)
    caps = {"train": settings.data.max_train_samples, "evaluation": settings.data.max_eval_samples}
    return replace(plan, counts={use: count.at_most(caps.get(use), use) for use, count in plan.counts.items()})
