"""From a composed cell to its run: settings, adapter, task, model, data and a budget's size, each checked. No torch."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorta.api.adapter import Adapter
from lorta.api.task import DataPlan, Task
from lorta.config.choices import choice_words
from lorta.config.compose import ALONE, Cell
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.ranges import projection_problems, range_problems
from lorta.config.settings import RunSettings, setting_problems
from lorta.config.signatures import node_problems
from lorta.geometry import Geometry
from lorta.models.locate import ModelFiles, find_model
from lorta.planning.budget import Sizes, solve
from lorta.planning.lr_search import check_rate
from lorta.planning.seeds import seeds_of, valid, with_typed_seeds
from lorta.planning.spec import RunSpec
from lorta.records.canonical import canonical_json, not_finite
from lorta.records.row_counts import CAPS
from lorta.records.sections import Budget

TASK_NAME = re.compile(r"[\w.-]*\w(/[\w.-]*\w)*")
AVERAGE = "average"  # lorta.analysis.significance.AVERAGE, whose import a plan does without


def _name_problem(name: str) -> str | None:
    """Return what is wrong with a task's name, which tables and files take."""
    if TASK_NAME.fullmatch(name) and name != AVERAGE:
        return None
    return f"task.name={name}: give it letters, digits, and - _ . between them, and not '{AVERAGE}', a column of tables"


def _place_problem(settings: RunSettings) -> str | None:
    runs = Path(settings.runtime.runs)
    return f"runtime.runs={runs}: it is a file, and the runs need a folder" if runs.is_file() else None


class CellPlanner:
    """Makes the runs of cells; every adapter, model and task node is looked at once however many cells share it."""

    def __init__(self, problems: Problems, folder: Path) -> None:
        """Take where sentences about cells go, and the absolute path of `conf`."""
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
        if sentence := _place_problem(settings) or _name_problem(str(settings.task.get("name"))):
            self.problems.add(sentence)
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
        if data is not None:
            self._once("hold-out", data_key | {"tune": repr(settings.tune)}, lambda: _check_rows_left(data, settings))
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
    asked = tune is not None and tune.search is not None
    searched = tune is not None and tune.has_trials(task.name)
    if (searched or settings.data.holdout is not None) and not task.supports_holdout:
        asks = "tune=lr" if searched else f"data.holdout={settings.data.holdout}"
        raise ValueError(f"task={task.name} cannot score rows of its training split, which {asks} needs: leave it out")
    fraction = isinstance(settings.data.holdout, float)
    if fraction and not task.splits_a_file:
        raise ValueError(
            f"data.holdout={settings.data.holdout}: task={task.name} has a split to score: give a number of rows"
        )
    if asked and fraction:
        raise ValueError("tune=lr needs a file validation beside train, not data.holdout: trials hold rows out as well")
    if asked and settings.data.holdout is not None:
        raise ValueError("tune=lr and data.holdout contradict: trials hold rows out (tune.holdout), leave one out")
    if asked:
        check_rate(settings, cell.overrides)


def _check_rows_left(plan: DataPlan, settings: RunSettings) -> None:
    """Raise ValueError where more than half of the training rows that are known would be held out."""
    tune = settings.tune
    tuned = tune.holdout if tune is not None and tune.has_trials(str(settings.task["name"])) else None
    key, held = ("tune.holdout", tuned) if tuned is not None else ("data.holdout", settings.data.holdout)
    if isinstance(held, int) and (count := plan.counts.get("train")) is not None:
        cap = settings.data.max_train_samples
        rows = count.used if cap is None else min(cap + held, count.used + count.dropped.get(CAPS["train"], 0))
        if 2 * held > rows:
            raise ValueError(f"{key}={held} is more than half of {rows} training rows: hold out fewer")


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
