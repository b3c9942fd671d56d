"""What tables and tests do differently for imported runs: their protocols, their names, and counts of right answers."""

import math
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from lorta.records.record import RunRecord

Protocol = tuple[tuple[str, str], ...]
ACCURACY = "accuracy"  # the metric whose number of right answers follows from its value
KIND = ("format", "model")  # tables of another kind are no alternatives
ROUNDING = 1e-6  # of a number of right answers


def protocol(record: RunRecord) -> Protocol:
    """Return what a run's table must share, empty for a run that was made here, so that such runs stay apart."""
    return () if record.imported is None else (("format", record.imported.format), *_sorted(record.imported.protocol))


def task_protocol(record: RunRecord) -> Protocol:
    """Return what the runs of one task must share beside it."""
    return () if record.imported is None else _sorted(record.imported.task_protocol)


def _sorted(values: dict[str, str]) -> Protocol:
    return tuple(sorted(values.items()))


def imported_names(records: Iterable[RunRecord]) -> dict[str, str] | None:
    """Return what the source calls each cell, without the adapter's and the model's name.

    None for runs made here, and where the names do not tell all cells of a task apart.
    """
    names: dict[str, str] = {}
    cells: set[tuple[str, str]] = set()  # of task and name
    named_by_path = False  # the adapter's name is the telling part of what the source calls it
    for record in records:
        named_by_path = record.imported is not None and record.imported.format == "lm_eval"
        if record.imported is None or record.adapter is None or record.task is None or record.model is None:
            return None
        if record.cell_id not in names:
            name = _shortened(record.imported.name, record.adapter.name, record.model.name)
            if (record.task.name, name) in cells:
                return None
            names[record.cell_id] = name
            cells.add((record.task.name, name))
    return dict.fromkeys(names, "") if len(set(names.values())) == 1 and named_by_path else names


def _shortened(name: str, adapter: str, model: str) -> str:
    """Return vera/llama-3.2-3B-default as default; nothing where the name is the adapter's."""
    rest = "" if name == adapter else name.removeprefix(f"{adapter}/")
    return rest[len(model) + 1 :] if rest.lower().startswith(f"{model.lower()}-") else rest


def differences(tables: Sequence[Sequence[RunRecord]]) -> list[Protocol]:
    """Return for each table's runs in which part of their protocol other tables differ, of one format and model."""
    described = [_described(records) for records in tables]
    named: list[Protocol] = []
    for own in described:
        alike = [other for other in described if own and other and all(other[key] == own[key] for key in KIND)]
        named.append(tuple((key, own[key]) for key in own if any(other.get(key) != own[key] for other in alike)))
    return named


def _described(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the protocol of a table's runs, empty for runs made here; what differs by task is left to the caption."""
    first = records[0]
    if first.imported is None or first.model is None:
        return {}
    of_tasks = [dict(task_protocol(record)) for record in records]
    shared = {key: value for key, value in of_tasks[0].items() if all(one.get(key) == value for one in of_tasks)}
    return {"model": first.model.name, **dict(protocol(first)), **shared}


def counted_items(records: Iterable[RunRecord]) -> dict[str, tuple[float, ...]]:
    """Return right and wrong answers of imported runs of which only the accuracy and the number of rows are known.

    Nobody knows which rows they are. Each run has them in a random order of its own, which makes the comparison of two
    runs that of independent samples: where methods agree on most rows, it sees fewer differences than a paired one.
    """
    items: dict[str, tuple[float, ...]] = {}
    for record in records:
        if (right := _right_answers(record)) is not None and record.primary_score is not None:
            answers = np.zeros(record.primary_score.n)
            answers[:right] = 1.0
            np.random.default_rng(zlib.crc32(record.run_id.encode())).shuffle(answers)
            items[record.run_id] = tuple(answers.tolist())
    return items


def is_counted(record: RunRecord) -> bool:
    """Return whether a run's answers are known by their number alone."""
    return _right_answers(record) is not None


def _right_answers(record: RunRecord) -> int | None:
    if record.imported is None or record.status != "success" or record.predictions_file is not None:
        return None
    score = record.primary_score
    if record.task is None or record.task.metric_primary != ACCURACY or score is None or score.value is None:
        return None
    right = score.value * score.n
    return round(right) if math.isclose(right, round(right), abs_tol=ROUNDING * score.n) else None
