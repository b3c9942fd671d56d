"""What runs will cost, from records of the past: seconds and bytes of the nearest kind of run that was done before."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from lorta.planning.spec import RunSpec
from lorta.status.states import RawRecord

KINDS = ("the same cell", "the same adapter, model and task", "the same model and task", "the same model")
Key = tuple[object, ...]


@dataclass(frozen=True)
class Forecast:
    """Expected cost of one run."""

    seconds: float  # median
    memory_bytes: int | None  # largest peak: of the device if there was one, else of the host
    kind: str  # what the past records share with the run


class Past:
    """Successful records, by what they share with runs to come."""

    def __init__(self, records: Iterable[RawRecord]) -> None:
        self._known: dict[Key, list[RawRecord]] = {}
        for record in records:
            if record.get("status") == "success" and record.get("time", "wall_s") is not None:
                for key in _keys_of_record(record):
                    self._known.setdefault(key, []).append(record)

    def forecast(self, spec: RunSpec) -> Forecast | None:
        """Return the expected cost of a run, None where nothing like it was ever run."""
        for kind, key in zip(KINDS, _keys_of_spec(spec), strict=True):
            if alike := self._known.get(key):
                seconds = statistics.median(record.get("time", "wall_s") for record in alike)
                return Forecast(seconds, max(map(_peak, alike), default=0) or None, kind)
        return None


def _peak(record: RawRecord) -> int:
    memory = record.get("memory") or {}
    return memory.get("train_peak_reserved_bytes") or memory.get("host_rss_peak_bytes") or 0


def _keys_of_record(record: RawRecord) -> list[Key]:
    adapter, task, model = (record.get("config", group, "name") for group in ("adapter", "task", "model"))
    return _keys(record.get("cell_id"), adapter, model, task)


def _keys_of_spec(spec: RunSpec) -> list[Key]:
    settings = spec.settings
    return _keys(spec.cell_id, settings.adapter["name"], settings.model.name, settings.task["name"])


def _keys(cell: object, adapter: object, model: object, task: object) -> list[Key]:
    return [("cell", cell), ("adapter", adapter, model, task), ("task", model, task), ("model", model)]
