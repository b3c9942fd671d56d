"""tune=lr: a grid of trials for every cell on rows held out of its training data, and the rate that they choose.

A trial is an ordinary run (`data.holdout` is in its cell), and so is the run with the chosen rate. Nothing else is
kept: who plans again reads the trials' records, and a command that was killed goes on where it was. No torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorta.config.settings import RunSettings
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.sections import Tuning
from lorta.records.store import Store

DIGITS = 6  # of a rate: 0.01 * 0.25 and 0.0025 are one run


@dataclass(frozen=True)
class Search:
    """The trials of one cell, by rate, rising; each with one run a seed. `key` is the rate that is searched."""

    spec: RunSpec  # of the cell, with the rate that the grid is laid around
    key: str
    trials: Mapping[float, tuple[RunSpec, ...]]

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """All trials."""
        return tuple(spec for specs in self.trials.values() for spec in specs)

    def under(self, named: Mapping[str, RunSpec]) -> "Search":
        """Return the search with its trials as they are named in the store, by signature."""
        trials = {rate: tuple(named[trial.signature] for trial in runs) for rate, runs in self.trials.items()}
        return replace(self, trials=trials)

    def result(self) -> Tuning | str:
        """Return the choice, from the records of the trials, or a sentence why there is none yet."""
        records = {spec.run_id: Store(spec.settings.runtime.runs).last(spec.run_id) for spec in self.runs}
        if open_ones := sum(not has_ended_for_search(record) for record in records.values()):
            return f"{open_ones} of {len(records)} learning-rate trials have no result yet"
        scores = [_score([records[spec.run_id] for spec in specs]) for specs in self.trials.values()]
        scored = {rate: score for rate, score in zip(self.trials, scores, strict=True) if score is not None}
        if not scored:
            return "no learning-rate trial has a score"
        return self._tuning(scores, self._best(scored, records))

    def _best(self, scored: Mapping[float, float], records: Mapping[str, RunRecord | None]) -> float:
        """Return the rate of the best score; of equal ones that nearest to where the grid was laid, then the lower."""
        task = next(record.task for record in records.values() if record is not None and record.task is not None)
        sign = 1 if task.higher_is_better else -1
        start = _rate(self.spec, self.key)
        return min(scored, key=lambda rate: (-sign * scored[rate], round(abs(math.log(rate / start)), DIGITS), rate))

    def _tuning(self, scores: Sequence[float | None], chosen: float) -> Tuning:
        grid, settings = tuple(self.trials), self.spec.settings
        assert settings.tune is not None and settings.tune.holdout is not None
        return Tuning(
            key=self.key,
            grid=grid,
            scores=tuple(scores),
            chosen=chosen,
            on_edge=chosen in (grid[0], grid[-1]),
            hold_out=settings.tune.holdout,
            seeds=tuple(settings.tune.seeds),
            trials=tuple(spec.run_id for spec in self.runs),
        )


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


def search(spec: RunSpec) -> Search:
    """Return the trials of a cell, the same for all of its seeds."""
    tune, key = spec.settings.tune, searched_key(spec.settings)
    assert tune is not None
    start = _rate(spec, key)
    rates = sorted({float(f"{start * factor:.{DIGITS}g}") for factor in tune.factors})
    held_out = {"holdout": tune.holdout, "max_eval_samples": None}
    bare = replace(spec, questions=())  # which trials do not answer
    trials = {rate: tuple(_with(bare, key, rate, seed, held_out) for seed in tune.seeds) for rate in rates}
    return Search(spec, key, trials)


def tuned(spec: RunSpec, tuning: Tuning) -> RunSpec:
    """Return the run with the chosen rate, as if that had been typed."""
    return replace(_with(spec, tuning.key, tuning.chosen, spec.settings.seed, {}), tuned=tuning)


def _rate(spec: RunSpec, key: str) -> float:
    return float(getattr(spec.settings.trainer, key))


def _with(spec: RunSpec, key: str, rate: float, seed: int, data: Mapping[str, Any]) -> RunSpec:
    settings = spec.settings
    changed = {
        "trainer": settings.trainer.model_copy(update={key: rate}),
        "data": settings.data.model_copy(update=dict(data)),
        "seed": seed,
    }
    words = {f"trainer.{key}": rate, "seed": seed, **{f"data.{name}": value for name, value in data.items()}}
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


def _score(records: Sequence[RunRecord | None]) -> float | None:
    """Return the mean over the trials of a rate, None where one of them diverged or its metric is undefined."""
    scores = [record.primary_score for record in records if record is not None]
    values = [score.value for score in scores if score is not None and score.value is not None]
    return sum(values) / len(values) if len(values) == len(records) else None
