"""tune=lr: trials of every cell on rows held out of its training data, and the rate that they choose.

Successive halving (Jamieson and Talwalkar 2016): all rates of the grid train for a share of the steps, a rung; the
better half goes on from its checkpoints to the next rung; the best of the last rung is chosen, or the lowest that
cannot be told from it (`tune.choice`). Where the best of the
first rung, or the choice, is the lowest or the highest rate, one beyond it is tried, a bounded number of times. So each
cell has the same budget of steps. A trial is an ordinary run (`data.holdout` and `trainer.stop_after` are in its cell),
and so is the run with the chosen rate. Nothing else is kept: who plans again reads the trials' records, and a command
that was killed goes on where it was. No torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lorta.config.identity import SEEDS, SEPARATE_SEEDS
from lorta.config.settings import RunSettings, TuneSettings
from lorta.planning.rate_choice import lowest_alike
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.sections import Tuning
from lorta.records.store import Store

DIGITS = 6  # of a rate: 0.01 * 0.25 and 0.0025 are one run


class Outcome(NamedTuple):
    """What the trials of one rate say at one rung: the mean score, None where one diverged or is undefined."""

    score: float | None
    collapsed: bool
    by_seed: tuple[float, ...]  # of those that have one


class Progress(NamedTuple):
    """The trials that a search needs so far, and its choice, or why there is none yet."""

    trials: tuple[RunSpec, ...]
    result: Tuning | str


@dataclass
class Results:
    """The records of trials, read once, by the signature of the trial; a trial may have an older name in its store."""

    _named: dict[str, RunSpec] = field(default_factory=dict[str, RunSpec])
    _records: dict[str, RunRecord | None] = field(default_factory=dict[str, RunRecord | None])

    def knows(self, trial: RunSpec) -> bool:
        """Return whether the trial was looked up."""
        return trial.signature in self._named

    def add(self, trials: Iterable[RunSpec]) -> None:
        """Look up trials, named as in their store."""
        for trial in trials:
            if not self.knows(trial):
                self._named[trial.signature] = trial
                self._records[trial.signature] = Store(trial.settings.runtime.runs).last(trial.run_id)

    def named(self, trial: RunSpec) -> RunSpec:
        """Return the trial with its name in the store."""
        return self._named.get(trial.signature, trial)

    def record(self, trial: RunSpec) -> RunRecord | None:
        """Return the trial's record, None where it has no result yet."""
        record = self._records.get(trial.signature)
        return record if has_ended_for_search(record) else None


@dataclass(frozen=True)
class Search:
    """The search of one cell. `key` is the rate that is searched, `grid` its rates to begin with, rising."""

    spec: RunSpec  # of the cell, with the rate that the grid is laid around
    key: str
    grid: tuple[float, ...]
    tune: TuneSettings

    def progress(self, results: Results) -> Progress:
        """Return the trials that are needed so far, and the choice or a sentence why there is none yet."""
        return _Steps(self, results).run()

    def trials(self, rate: float, rung: int, results: Results) -> tuple[RunSpec, ...]:
        """Return the trials of a rate that stop at a rung, one a seed; they go on from those of the rung before."""
        share = self.tune.rungs[rung]
        data = {"holdout": self.tune.holdout, "max_eval_samples": None}
        stop = None if share == 1.0 else share
        bare = _as_trial(self.spec)
        runs = [_with(bare, {self.key: rate, "stop_after": stop}, seed, data) for seed in self.tune.seeds]
        if rung == 0:
            return tuple(runs)
        before = [results.named(trial).run_id for trial in self.trials(rate, rung - 1, results)]
        return tuple(replace(run, continues=earlier) for run, earlier in zip(runs, before, strict=True))

    def beyond(self, rates: Sequence[float], edge: float) -> float:
        """Return the next rate past the lowest or the highest one, as far from it as its neighbour."""
        ordered = sorted(rates)
        low, high = ordered[0], ordered[-1]
        ratio = low / ordered[1] if edge == low else high / ordered[-2]
        return rounded(edge * ratio)

    def most_shares(self) -> float:
        """Return how many whole runs of one seed the steps of a search are at most, rates beyond the grid included."""
        steps, before = self.tune.extensions * self.tune.rungs[-1], 0.0
        for rung, share in enumerate(self.tune.rungs):
            steps, before = steps + (share - before) * survivors(len(self.grid), rung), share
        return steps


class _Waiting(Exception):
    """A trial has no result yet."""


class _Steps:
    """One walk through a search, as far as results go."""

    def __init__(self, of: Search, results: Results) -> None:
        self.of, self.results, self.rungs = of, results, of.tune.rungs
        self.extensions = of.tune.extensions
        self.needed: dict[str, RunSpec] = {}
        self.outcomes: dict[float, Outcome] = {}  # of each rate at the highest rung that it came to
        self.reached: dict[float, int] = {}
        self.record: RunRecord | None = None  # of any trial, for the task and its rows

    def run(self) -> Progress:
        try:
            chosen = self._chosen()
        except _Waiting:
            known = [self.results.record(trial) for trial in self.needed.values()]
            left = sum(record is None for record in known)
            return self._progress(f"{left} of {len(known)} learning-rate trials have no result yet")
        return self._progress("no learning-rate trial has a score" if chosen is None else self._tuning(chosen))

    def _progress(self, result: Tuning | str) -> Progress:
        return Progress(tuple(self.needed.values()), result)

    def _chosen(self) -> float | None:
        """Return the chosen rate, None where no trial has a score. Raises _Waiting."""
        first = list(self.of.grid)
        self._go_to(first, 0)
        self._past_the_edge(first, 0)
        left = self._ordered(first)
        for rung in range(1, len(self.rungs)):
            left = left[: survivors(len(self.of.grid), rung)]
            if len(left) < 2:
                break
            self._go_to(left, rung)
            left = self._ordered(left)
        if not left:
            return None
        last = max(self.reached[rate] for rate in left)
        if last > 0:
            left = self._past_the_edge(left, last)
        return self._choice(left)

    def _choice(self, ordered: Sequence[float]) -> float:
        """Return the best rate, or with `tune.choice=one_se` the lowest that cannot be told from it."""
        sound = {rate: self.outcomes[rate].by_seed for rate in ordered if not self.outcomes[rate].collapsed}
        if self.of.tune.choice == "best" or not sound:
            return ordered[0]
        return lowest_alike(sound, self._higher_is_better())

    def _go_to(self, rates: Sequence[float], rung: int) -> None:
        """Take the outcomes of these rates at a rung; all of their trials are asked for at once."""
        runs = {rate: self.of.trials(rate, rung, self.results) for rate in rates}
        self.needed |= {trial.signature: trial for trials in runs.values() for trial in trials}
        records = {rate: [self.results.record(trial) for trial in trials] for rate, trials in runs.items()}
        for rate, of_rate in records.items():
            known = [record for record in of_rate if record is not None]
            if len(known) < len(of_rate):
                raise _Waiting
            self.record = next((record for record in known if record.status == "success"), self.record or known[0])
            values = _values(known)
            mean = sum(values) / len(values) if len(values) == len(known) else None
            self.outcomes[rate] = Outcome(mean, any(record.collapsed for record in known), values)
            self.reached[rate] = rung

    def _past_the_edge(self, rates: list[float], rung: int) -> list[float]:
        """Add rates beyond the best one to `rates` while it is the lowest or highest tried; return them in order.

        Where none has a score, all are too high: a loss diverges, or all answers become the same, at high rates.
        """
        tried = self.outcomes
        while self.extensions:
            best = next(iter(self._ordered(rates)), min(tried))
            if best not in (min(tried), max(tried)):
                break
            self.extensions -= 1
            rates.append(self.of.beyond(list(tried), best))
            self._go_to(rates[-1:], rung)
        return self._ordered(rates)

    def _ordered(self, rates: Iterable[float]) -> list[float]:
        """Return the rates that have a score, best first: collapsed ones last, of equal ones that nearest to the start.

        A collapsed rate is therefore chosen only where all are, which the choice says.
        """
        sign = 1 if self._higher_is_better() else -1
        start = _rate(self.of.spec, self.of.key)

        def key(rate: float) -> tuple[bool, float, float, float]:
            outcome = self.outcomes[rate]
            return outcome.collapsed, -sign * (outcome.score or 0.0), round(abs(math.log(rate / start)), DIGITS), rate

        return sorted((rate for rate in rates if self.outcomes[rate].score is not None), key=key)

    def _higher_is_better(self) -> bool:
        assert self.record is not None and self.record.task is not None
        return self.record.task.higher_is_better

    def _tuning(self, chosen: float) -> Tuning:
        tune, grid = self.of.tune, tuple(sorted(self.outcomes))
        shares = [self.rungs[self.reached[rate]] for rate in grid]
        steps = steps_of(self.record)
        assert tune.holdout is not None
        return Tuning(
            key=self.of.key,
            grid=grid,
            scores=tuple(self.outcomes[rate].score for rate in grid),
            chosen=chosen,
            on_edge=chosen in (grid[0], grid[-1]),
            hold_out=tune.holdout,
            seeds=tuple(tune.seeds),
            trials=tuple(self.results.named(trial).run_id for trial in self.needed.values()),
            stopped_after=tuple(shares),
            steps=None if steps is None else round(sum(shares) * steps * len(tune.seeds)),
            most_steps=None if steps is None else round(self.of.most_shares() * steps * len(tune.seeds)),
            collapsed=tuple(self.outcomes[rate].collapsed for rate in grid),
            task=_task(self.of.spec),
            choice=tune.choice,
        )


def survivors(rates: int, rung: int) -> int:
    """Return how many of the grid's rates train to a rung; rates beyond the grid leave no more."""
    return math.ceil(rates / 2**rung)


def steps_of(record: RunRecord | None) -> int | None:
    """Return the optimizer steps of a whole run like a trial's, None where its record does not tell."""
    if record is None or record.protocol is None:
        return None
    if record.protocol.max_steps is not None:
        return record.protocol.max_steps
    train = record.task.splits.get("train") if record.task else None
    if train is None or not train.rows or record.batch is None:
        return None
    return math.ceil((record.protocol.epochs or 0.0) * math.ceil(train.rows / record.batch.effective))


def searching(spec: RunSpec) -> bool:
    """Return whether the run's rate is to be searched."""
    return spec.settings.tune is not None and spec.settings.tune.search == "lr"


def searched_key(settings: RunSettings) -> str:
    """Return which rate of the trainer is searched: the adapter's, or the head's where nothing else is trained."""
    return "head_learning_rate" if settings.trainer.learning_rate is None else "learning_rate"


def check_rate(settings: RunSettings, overrides: Sequence[str]) -> None:
    """Raise ValueError where the command line sets the rate that is searched."""
    key = f"trainer.{searched_key(settings)}"
    if any(override.startswith(f"{key}=") for override in overrides):
        raise ValueError(f"tune=lr and {key} contradict: the trials choose the learning rate, so leave one of them out")


def check_seeds(specs: Sequence[RunSpec]) -> list[str]:
    """Return a sentence where trials would have a seed of the runs that their rate is chosen for."""
    shared: set[int] = set()
    for spec in specs:
        tune, rule, first = spec.settings.tune, spec.settings.seeds, spec.settings.seed
        if tune is not None and searching(spec):
            most = rule.most if rule is not None and rule.until and rule.most else 1
            shared |= set(tune.seeds) & set(range(first, first + most))
    if not shared:
        return []
    listed = ", ".join(map(str, sorted(shared)))
    return [f"tune.seeds: {listed} would also be a seed of the runs themselves; give the trials seeds of their own"]


def searches_of(first: Mapping[str, RunSpec]) -> dict[str, str]:
    """Return cell -> the cell whose search chooses its rate: itself, or the one of `tune.task` of the same method.

    `first` has a run of each cell. Raises ValueError where the sweep has no such run, a sentence for each method.
    """
    searched = {cell: spec for cell, spec in first.items() if searching(spec)}
    cells = {(_task(spec), _method(spec)): cell for cell, spec in searched.items()}
    chosen: dict[str, str] = {}
    missing: dict[str, None] = {}
    for cell, spec in searched.items():
        assert spec.settings.tune is not None
        task = spec.settings.tune.task
        if spec.settings.tune.has_trials(_task(spec)):
            chosen[cell] = cell
        elif task is not None and (task, _method(spec)) in cells:
            chosen[cell] = cells[task, _method(spec)]
        else:
            others = ", ".join(dict.fromkeys(name for name, _ in cells))
            missing[
                f"tune.task={task}: the sweep has no run of this task that can search the rate of "
                f"adapter={spec.adapter.name}; its tasks are {others}"
            ] = None
    if missing:
        raise ValueError("\n".join(missing))
    return chosen


def _task(spec: RunSpec) -> str:
    return str(spec.settings.task["name"])


def _method(spec: RunSpec) -> str:
    """Return what a run's rate is searched for, whatever its task: all of its words but the task and the seeds."""
    return " ".join(sorted(word for word in spec.overrides if word.partition("=")[0] not in {"task", *SEEDS}))


def search(spec: RunSpec) -> Search:
    """Return the search of a cell, the same for all of its seeds."""
    tune, key = spec.settings.tune, searched_key(spec.settings)
    assert tune is not None
    start = _rate(spec, key)
    return Search(spec, key, tuple(sorted({rounded(start * factor) for factor in tune.factors})), tune)


def _as_trial(spec: RunSpec) -> RunSpec:
    """Return the run without questions, which trials do not answer, and without separate seeds."""
    settings = spec.settings.model_copy(update=dict.fromkeys(SEPARATE_SEEDS))
    words = tuple(word for word in spec.overrides if word.partition("=")[0] not in SEPARATE_SEEDS)
    return replace(spec, questions=(), settings=settings, overrides=words)


def tuned(spec: RunSpec, tuning: Tuning) -> RunSpec:
    """Return the run with the chosen rate, as if that had been typed."""
    of_task = replace(tuning, task=None if tuning.task == _task(spec) else tuning.task)
    return replace(_with(spec, {tuning.key: tuning.chosen}, spec.settings.seed, {}), tuned=of_task)


def rounded(rate: float) -> float:
    """Return a rate with the digits that tell rates apart."""
    return float(f"{rate:.{DIGITS}g}")


def _rate(spec: RunSpec, key: str) -> float:
    return float(getattr(spec.settings.trainer, key))


def _with(spec: RunSpec, trainer: Mapping[str, Any], seed: int, data: Mapping[str, Any]) -> RunSpec:
    settings = spec.settings
    changed = {
        "trainer": settings.trainer.model_copy(update=dict(trainer)),
        "data": settings.data.model_copy(update=dict(data)),
        "seed": seed,
    }
    words = {f"trainer.{name}": value for name, value in trainer.items() if (name, value) != ("stop_after", None)}
    words |= {"seed": seed, **{f"data.{name}": value for name, value in data.items()}}
    typed = [word for word in spec.overrides if word.partition("=")[0] not in {*words, "tune"}]
    typed = [word for word in typed if not word.startswith("tune.")]
    added = [f"{name}={'null' if value is None else value}" for name, value in words.items()]
    return replace(spec, settings=settings.model_copy(update=changed), overrides=(*typed, *added), earlier_id=None)


def has_ended_for_search(record: RunRecord | None) -> bool:
    """Return whether a trial need not run again: it has a result, or its rate made the loss diverge."""
    if record is None:
        return False
    diverged = record.status == "failed" and record.failure is not None and record.failure.kind == "nan"
    return record.status == "success" or diverged


def _values(records: Sequence[RunRecord]) -> tuple[float, ...]:
    """Return the scores of a rate's trials, without those that diverged or whose metric is undefined."""
    scores = [record.primary_score for record in records]
    return tuple(score.value for score in scores if score is not None and score.value is not None)
