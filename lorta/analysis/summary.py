"""From records to the numbers of tables: rows of (adapter, rank), a score per task, their average, parameters and time.

Runs of different models, data sources, protocol numbers, row caps or selection rules go into different tables, and so
do different training lengths of one task, and metrics of which less is better. Imported runs share no table with runs
of this project, and share one with each other only where their protocols are the same. Cells that differ in anything
else become rows of their own, named by the settings that differ. Pure functions; no torch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from lorta.analysis.imported import Protocol, differences, imported_names, protocol, task_protocol
from lorta.analysis.statistics import mean, sample_std
from lorta.config.identity import SEEDS
from lorta.records.canonical import flat
from lorta.records.record import RunRecord
from lorta.records.sections import AdapterSection, ModelSection, Parameters, ProtocolSection, Score, TaskSection, Timing

POINTS = 100.0  # scores are shown as points of one hundred, except losses and distances: those as they are
Item = TypeVar("Item")
Key = TypeVar("Key")


class Run(NamedTuple):
    """A finished record with the sections that a result must have."""

    record: RunRecord
    adapter: AdapterSection
    task: TaskSection
    model: ModelSection
    protocol: ProtocolSection
    params: Parameters | None  # None of an imported run alone
    time: Timing
    score: Score


class Count(NamedTuple):
    """Scalars of a row; low and high differ where tasks differ, for example in the number of labels of the head."""

    low: int
    high: int


@dataclass(frozen=True)
class Cell:
    """Mean over seeds and sample standard deviation (None for one seed); a `mean` of None has a note that says why."""

    mean: float | None
    std: float | None = None
    values: tuple[float, ...] = ()  # by seed
    seeds: tuple[int, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Row:
    """One method at one rank. Scores are in points (losses as they are), time in seconds per run."""

    adapter: str
    rank: int | None
    variant: str  # the settings that tell this row from others of the same adapter and rank, often empty
    adapter_parameters: Count
    head_parameters: Count
    other_parameters: Count
    cells: Mapping[str, Cell]  # by task
    average: Cell
    train_s: Cell
    runs: tuple[Run, ...]
    sizes_known: bool = True  # otherwise the counts of parameters are 0, and are not to be shown

    @property
    def label(self) -> str:
        """The row's name in words."""
        rank = "" if self.rank is None else f" r={self.rank}"
        return f"{self.adapter}{rank}{f' ({self.variant})' if self.variant else ''}"


@dataclass(frozen=True)
class Table:
    """Comparable rows: one model, one source of data, one protocol."""

    tasks: tuple[str, ...]
    metrics: Mapping[str, str]  # task -> metric shown
    rows: tuple[Row, ...]
    differs: tuple[tuple[str, str], ...] = ()  # of imported runs: what of their protocol other tables have otherwise

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs behind the table."""
        return tuple(run for row in self.rows for run in row.runs)

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better, in all columns."""
        return self.rows[0].runs[0].task.higher_is_better

    @property
    def scale(self) -> float:
        """What a stored score is multiplied by to be shown."""
        return _scale(self.rows[0].runs[0])

    @property
    def decimals(self) -> int:
        """Digits behind the point of a shown score."""
        return 1 if self.higher_is_better else 4

    def short(self, task: str) -> str:
        """Return the task's name without its family, where that is unambiguous."""
        last_parts = [name.rpartition("/")[2] for name in self.tasks]
        return task.rpartition("/")[2] if len(set(last_parts)) == len(last_parts) else task


def summarise(records: Iterable[RunRecord]) -> tuple[Table, ...]:
    """Return one table per comparable set of successful records, in a fixed order.

    Raises ValueError when runs of one task saw different data, because such scores must not stand in one column.
    """
    ordered = sorted(records, key=lambda record: record.run_id)
    runs = [
        _run(record)
        for record in ordered
        if record.status == "success" and not (record.is_trial or record.has_separate_seeds)
    ]
    tables: list[Table] = []
    for _, comparable in sorted(group(runs, _table_key).items()):
        uneven = any(len({_length(run) for run in of_task}) > 1 for of_task in group(comparable, _task_name).values())
        lengths = group(comparable, _length if uneven else lambda run: (-1.0, -1, ()))
        tables += [_table(same_length) for _, same_length in sorted(lengths.items())]
    differs = differences([[run.record for run in table.runs] for table in tables])
    return tuple(replace(table, differs=of_table) for table, of_table in zip(tables, differs, strict=True))


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by key, both in order of appearance."""
    groups: defaultdict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _run(record: RunRecord) -> Run:
    sized = record.params or record.imported
    if not (record.adapter and record.task and record.model and record.protocol and sized and record.time):
        raise ValueError(f"record {record.run_id} is a success without all its sections; run it again.")
    score = record.primary_score
    if score is None:
        raise ValueError(
            f"record {record.run_id} has no {record.task.metric_primary}, its primary metric; run it again."
        )
    return Run(record, record.adapter, record.task, record.model, record.protocol, record.params, record.time, score)


def _task_name(run: Run) -> str:
    return run.task.name


def _length(run: Run) -> tuple[float, int, Protocol]:
    epochs = -1.0 if run.protocol.epochs is None else run.protocol.epochs
    return epochs, run.protocol.max_steps or -1, task_protocol(run.record)


def _table_key(run: Run) -> tuple[Any, ...]:
    model, task = run.model, run.task
    return (
        (model.name, model.id, model.revision or "", model.dtype, model.quantization or ""),
        (task.source, task.protocol, run.protocol.selection, run.record.row_order or ""),
        (task.max_train_samples or -1, task.max_eval_samples or -1),
        not task.higher_is_better,
        protocol(run.record),
    )


def _table(runs: Sequence[Run]) -> Table:
    by_task = group(runs, _task_name)
    for task, of_task in by_task.items():
        _refuse_mixed_data(task, of_task)
    tasks = tuple(sorted(by_task))
    rows = [
        _row(variant, of_row, tasks)
        for _, of_method in group(runs, lambda run: (run.adapter.name, run.adapter.rank)).items()
        for variant, of_row in _by_variant(of_method)
    ]
    smallest = {name: min(row.adapter_parameters for row in of_name) for name, of_name in group(rows, _adapter).items()}
    rows.sort(key=lambda row: (smallest[row.adapter], row.adapter, row.rank or 0, row.adapter_parameters, row.variant))
    return Table(tasks, {task: by_task[task][0].task.metric_primary for task in tasks}, tuple(rows))


def _adapter(row: Row) -> str:
    return row.adapter


def _refuse_mixed_data(task: str, runs: Sequence[Run]) -> None:
    """Compare what was scored over all runs, and what was trained on between runs of one seed, which may sample it."""
    kinds = [group(runs, lambda run: _scored_data(run.task))]
    kinds += [group(of_seed, _all_data) for of_seed in group(runs, lambda run: run.record.seed).values()]
    if mixed := next((kind for kind in kinds if len(kind) > 1), None):
        sets = sorted(mixed.values(), key=lambda runs_of: max(run.record.created_at for run in runs_of))
        examples = ", ".join(runs_of[0].record.run_id for runs_of in sets)
        older = ",".join(run.record.run_id for runs_of in sets[:-1] for run in runs_of)
        raise ValueError(
            f"the records of {task} come from different data and cannot share a table: runs {examples} "
            "differ in revision, split, metric or fingerprint; give each data set a store of its own "
            "(data.root=A runtime.runs=runs-A), or, if rows were corrected, remove the runs of the older "
            f"rows (lorta rm id={older})."
        )


def _scored_data(task: TaskSection) -> tuple[str, ...]:
    split = task.splits.get(task.split_primary)
    return task.revision, task.split_primary, task.metric_primary, split.fingerprint if split else ""


def _all_data(run: Run) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, split.fingerprint) for name, split in run.task.splits.items()))


def _by_variant(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Split the runs of one adapter and rank by the settings in which cells of the same task differ."""
    if (names := imported_names(run.record for run in runs)) is not None:
        return iter(sorted(group(runs, lambda run: names[run.record.cell_id]).items()))
    by_task = group(runs, _task_name).values()
    if all(len({run.record.cell_id for run in of_task}) == 1 for of_task in by_task):
        return iter([("", list(runs))])
    settings = {run.record.cell_id: _settings(run.record.config) for run in runs}
    differing: set[str] = set()
    for of_task in by_task:
        cells = [settings[cell] for cell in sorted({run.record.cell_id for run in of_task})]
        differing |= {key for cell in cells for key in cell if any(other.get(key) != cell[key] for other in cells)}
    names = {key: key.rpartition(".")[2] for key in sorted(differing)}
    short = len(set(names.values())) == len(names)

    def variant(run: Run) -> str:
        values = settings[run.record.cell_id]
        return ", ".join(f"{name if short else key}={values.get(key)}" for key, name in names.items())

    return iter(sorted(group(runs, variant).items()))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value, seeds left out: they do not tell cells apart."""
    return {key: value for key, value in flat(config).items() if key.rpartition(".")[2] not in SEEDS}


def _row(variant: str, runs: Sequence[Run], tasks: Sequence[str]) -> Row:
    by_task = {task: sorted((run for run in runs if run.task.name == task), key=_seed) for task in tasks}
    cells = {task: _cell(of_task, _points, _why_no_score) for task, of_task in by_task.items()}
    times = {task: _cell(of_task, _train_s, _why_no_time) for task, of_task in by_task.items()}
    known = [run.params for run in runs if run.params is not None]
    parts = [(params.adapter, params.head, params.other_trainable) for params in known] or [(0, 0, 0)]
    adapter, head, other = (Count(min(values), max(values)) for values in zip(*parts, strict=True))
    name, rank = runs[0].adapter.name, runs[0].adapter.rank
    average, seconds, all_known = _average(cells), _average(times), len(known) == len(runs)
    return Row(name, rank, variant, adapter, head, other, cells, average, seconds, tuple(runs), all_known)


def _seed(run: Run) -> int:
    return run.record.seed


def _points(run: Run) -> float | None:
    if run.score.value is None:
        return 0.0 if counts_as_zero(run.record) else None
    return run.score.value * _scale(run)


def counts_as_zero(record: RunRecord) -> bool:
    """Return whether a finished run's correlation is undefined because it gives one number to all rows.

    A constant tells nothing about the labels, like a correlation of 0, which Matthews' is then by definition. To leave
    such runs out would flatter the method.
    """
    score, spread = record.primary_score, record.spread
    return (
        score is not None
        and score.value is None
        and spread is not None
        and spread.collapsed
        and spread.predictions_std == 0.0
    )


def _scale(run: Run) -> float:
    return POINTS if run.task.higher_is_better else 1.0


def _why_no_score(run: Run) -> str:
    return f"no {run.task.metric_primary} for seed {run.record.seed}: {run.score.reason}"


def _train_s(run: Run) -> float | None:
    return run.time.train_s


def _why_no_time(run: Run) -> str:
    return f"no training time for seed {run.record.seed}: {run.record.reasons.get('time.train_s', 'not measured')}"


def _cell(runs: Sequence[Run], value: Callable[[Run], float | None], why: Callable[[Run], str]) -> Cell:
    """Return the cell of one task; one seed without a value leaves the mean out, because the rest would flatter it."""
    if not runs:
        return Cell(None, note="no finished run")
    seeds = tuple(map(_seed, runs))
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"runs {', '.join(run.record.run_id for run in runs)} have the same adapter, task and settings, and seeds "
            f"{', '.join(map(str, seeds))}: keep one run per seed."
        )
    values = [number for run in runs if (number := value(run)) is not None]
    if len(values) < len(runs):
        return Cell(None, None, tuple(values), seeds, "; ".join(why(run) for run in runs if value(run) is None))
    return Cell(mean(values), sample_std(values), tuple(values), seeds)


def _average(cells: Mapping[str, Cell]) -> Cell:
    """Average over tasks within a seed first, so that the deviation is that of the average."""
    missing = [task.rpartition("/")[2] for task, cell in cells.items() if cell.mean is None]
    if missing:
        return Cell(None, note=f"no value for {', '.join(missing)}")
    seeds = {cell.seeds for cell in cells.values()}
    if len(seeds) > 1:
        note = "the seeds differ between tasks: a mean of means, without a deviation"
        return Cell(mean([cell.mean for cell in cells.values() if cell.mean is not None]), note=note)
    values = tuple(mean(of_seed) for of_seed in zip(*(cell.values for cell in cells.values()), strict=True))
    return Cell(mean(values), sample_std(values), values, seeds.pop())
