"""What runs will cost, from records of the past: seconds and bytes of the nearest kind of run that was done before.

Seconds follow the work: rows trained on times their length, and rows scored.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lorta.planning.spec import RunSpec
from lorta.status.states import RawRecord

KINDS = ("the same cell", "the same adapter, model and task", "the same model and task", "the same model")
Key = tuple[object, ...]
SECTIONS_READ = ("batch", "memory", "params", "protocol", "task", "throughput", "time")  # of a record, and its data


@dataclass(frozen=True)
class Forecast:
    """Expected cost of one run."""

    seconds: float  # median
    memory_bytes: int | None  # largest peak: of the device if there was one, else of the host
    kind: str  # what the past records share with the run


@dataclass(frozen=True)
class Work:
    """How much a run trains and scores; None where it is not known.

    Attributes:
        epochs: of the training rows; ignored where `steps` is given.
        steps: optimizer steps, where they decide.
        batch: rows of an optimizer step.
        rows: training rows.
        scored: evaluation rows.
        longest: tokens at which rows are cut.
        weights: of the adapter.
    """

    epochs: float
    steps: int | None
    batch: int
    rows: int | None
    scored: int | None
    longest: int
    weights: int | None = None

    @property
    def trained(self) -> float | None:
        """Rows trained on, each as often as it is seen."""
        if self.steps is not None:
            return float(self.steps * self.batch)
        return None if self.rows is None else self.epochs * self.rows


class Past:
    """Successful records, by what they share with runs to come."""

    def __init__(self, records: Iterable[RawRecord]) -> None:
        self._known: dict[Key, list[RawRecord]] = {}
        for record in records:
            own = record.get("imported") is None  # other machines have other seconds
            if own and record.get("status") == "success" and record.get("time", "wall_s") is not None:
                read = _parts_read(record)
                for key in keys_of_record(record):
                    self._known.setdefault(key, []).append(read)

    def forecasts(self, specs: Iterable[RunSpec]) -> dict[str, Forecast | None]:
        """Return run id -> expected cost; all seeds of a cell cost the same."""
        of_cells: dict[str, Forecast | None] = {}
        costs: dict[str, Forecast | None] = {}
        for spec in specs:
            if spec.cell_id not in of_cells:
                of_cells[spec.cell_id] = self.forecast(spec)
            costs[spec.run_id] = of_cells[spec.cell_id]
        return costs

    def forecast(self, spec: RunSpec) -> Forecast | None:
        """Return the expected cost of a run, None where nothing like it was ever run."""
        return self.expected(_keys_of_spec(spec), work_of_spec(spec))

    def expected(self, keys: Iterable[Key], work: Work) -> Forecast | None:
        """Return the expected cost of some work by the first of the keys that is known."""
        for kind, key in zip(KINDS, keys, strict=True):
            if alike := _most_alike(self._known.get(key, []), work.weights):
                seconds = statistics.median(_seconds(record, work) for record in alike)
                return Forecast(seconds, max(map(_peak, alike), default=0) or None, kind)
        return None


def _parts_read(record: RawRecord) -> RawRecord:
    """Return a record with what is read of it here, a tenth: a store may hold many thousands."""
    parts = {name: record.get(name) for name in SECTIONS_READ}
    return RawRecord(record.folder, {**parts, "config": {"data": record.get("config", "data")}})


def _most_alike(records: list[RawRecord], weights: int | None) -> list[RawRecord]:
    """Return the records whose adapters are nearest to a size, where it is known; trials where there is nothing else.

    Many trials run at once, on a machine that is fuller than for the runs themselves.
    """
    kept = [record for record in records if not record.is_trial] or records
    if weights is None or not kept:
        return kept
    sizes = [math.log1p(record.get("params", "adapter") or 0) for record in kept]
    nearest = min(abs(size - math.log1p(weights)) for size in sizes)
    return [record for record, size in zip(kept, sizes, strict=True) if abs(size - math.log1p(weights)) == nearest]


def work_of_record(record: RawRecord) -> Work:
    """Return what a finished run did."""
    return Work(
        epochs=float(record.get("protocol", "epochs") or 1.0),
        steps=record.get("protocol", "max_steps"),
        batch=int(record.get("batch", "effective") or 1),
        rows=record.get("task", "splits", "train", "rows") or None,
        scored=record.scored_split.get("rows") or None,
        longest=int(record.get("config", "data", "max_length") or 0),
        weights=record.get("params", "adapter"),
    )


def work_of_spec(spec: RunSpec) -> Work:
    """Return what a run will do, as far as its plan knows: the rows of some sources are not counted in it."""
    trainer, data, counts = spec.settings.trainer, spec.settings.data, spec.data.counts
    rows = {use: count.used for use, count in counts.items()}
    return Work(
        epochs=trainer.num_train_epochs,
        steps=trainer.max_steps if trainer.max_steps > 0 else None,
        batch=trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps,
        rows=rows.get("train", data.max_train_samples),
        scored=rows.get("evaluation", data.max_eval_samples),
        longest=data.max_length,
        weights=spec.parameters,
    )


def _seconds(record: RawRecord, work: Work) -> float:
    """Return a record's seconds as if it had done some other work: loading and saving stay, the rest is in proportion.

    Rows of a plan that are not counted are taken to be those of the record.
    """
    done = work_of_record(record)
    wall, train, score = (float(record.get("time", name) or 0.0) for name in ("wall_s", "train_s", "eval_s"))
    work = replace(work, rows=work.rows or done.rows, scored=work.scored or done.scored)
    length = _length(record, done.longest, work.longest)
    training = work.trained / done.trained * length if work.trained and done.trained else 1.0
    scoring = work.scored / done.scored * length if work.scored and done.scored else 1.0
    return wall + train * (training - 1.0) + score * (scoring - 1.0)


def _length(record: RawRecord, then: int, now: int) -> float:
    """Return how much shorter rows are when they are cut at `now` tokens, where that is below their mean length.

    A higher limit changes nothing where rows were not cut, and nobody knows how long those are that were.
    """
    tokens, samples = (record.get("throughput", f"train_{name}_per_s") for name in ("tokens", "samples"))
    if not tokens or not samples or not then:
        return 1.0
    mean = float(tokens) / float(samples)
    cut = mean > 0.9 * then  # nearly all rows are as long as the limit: they follow it
    return now / then if cut else min(mean, float(now)) / mean


def _peak(record: RawRecord) -> int:
    memory = record.get("memory") or {}
    return memory.get("train_peak_reserved_bytes") or memory.get("host_rss_peak_bytes") or 0


def keys_of_record(record: RawRecord) -> list[Key]:
    """Return what is shared with other runs, from all to little."""
    adapter, task, model = (record.get("config", group, "name") for group in ("adapter", "task", "model"))
    return _keys(record.get("cell_id"), adapter, model, task)


def _keys_of_spec(spec: RunSpec) -> list[Key]:
    settings = spec.settings
    return _keys(spec.cell_id, settings.adapter["name"], settings.model.name, settings.task["name"])


def _keys(cell: object, adapter: object, model: object, task: object) -> list[Key]:
    return [("cell", cell), ("adapter", adapter, model, task), ("task", model, task), ("model", model)]
