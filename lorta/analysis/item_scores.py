"""Scores of single rows, made from stored predictions: what is kept of them beside exported records.

An item's score is its jackknife pseudo-value of the run's primary metric, n * all - (n - 1) * all_but_this_one (Efron
and Tibshirani 1993, section 11.5). For a mean, such as accuracy, that is the item's own score, 0 or 1; for a
correlation the pseudo-values average to the score but for its bias, and their spread gives its standard error.
"""

import gzip
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from lorta.analysis.summary import counts_as_zero
from lorta.config.instantiate import build, trusting
from lorta.records.record import RunRecord, Score
from lorta.records.store import Store, write_atomically
from lorta.records.suites import seal

# of a row of predictions: left out when rows are compared, if the score does not need them
ASIDE = ("idx", "logits", "cluster")
MOST_DISTINCT = 5_000  # each kind of row costs one score of all others
DECIMALS = 4
KEPT_NAME = "items.json"  # in a run's folder

Scorer = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Score]]
ItemScores = Mapping[str, tuple[float, ...]]  # run_id -> scores of its rows, in the order of the predictions


class Items(tuple[float, ...]):
    """The scores of a run's rows, the number of each row's cluster, and the untouched model's scores of the rows.

    `clusters` is None where rows have none, `base` where the task does not score the backbone.
    """

    clusters: tuple[int, ...] | None
    base: tuple[float, ...] | None

    def __new__(
        cls, scores: Iterable[float], clusters: tuple[int, ...] | None = None, base: tuple[float, ...] | None = None
    ) -> "Items":
        """Take all in the order of the predictions."""
        items = super().__new__(cls, scores)
        items.clusters, items.base = clusters, base
        return items


@dataclass(frozen=True)
class Line:
    """One run of an item file; `predictions_sha256` ties it to the record's predictions.

    `clusters` are the numbers of the rows' clusters: rows of one passage, conversation or family belong together.
    """

    run_id: str
    predictions_sha256: str
    metric: str
    items: tuple[float, ...]
    clusters: tuple[int, ...] | None = None
    base: tuple[float, ...] | None = None  # of the untouched model

    @property
    def scores(self) -> Items:
        """The scores with their clusters and those of the untouched model."""
        return Items(self.items, self.clusters, self.base)

    def to_json(self) -> str:
        """Return one line of JSON; scores of 0 and 1 are a string of digits, what is not known is left out."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        packed = {name: _packed(values[name]) for name in ("items", "base") if name in values}
        return json.dumps({**values, **packed})

    @classmethod
    def from_json(cls, text: str) -> "Line":
        """Read a line. Raises ValueError for anything else."""
        try:
            values = json.loads(text)
            clusters = values.get("clusters")
            read = {"items": tuple(map(float, values["items"])), "clusters": clusters and tuple(map(int, clusters))}
            base = values.get("base")
            return cls(**{**values, **read, "base": base and tuple(map(float, base))})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"it needs exactly run_id, predictions_sha256, metric, items (and clusters, base): {error}"
            ) from error


def _packed(scores: tuple[float, ...]) -> str | list[float]:
    binary = all(score in (0.0, 1.0) for score in scores)
    return "".join(str(int(score)) for score in scores) if binary else list(scores)


def base_metric(primary: str) -> str:
    """Return the name under which a task has its primary metric of the untouched model."""
    return f"base_{primary}"


def item_scores(score: Scorer, metric: str, rows: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    """Return each row's pseudo-value, or None where the metric is undefined without some row.

    Equal rows have equal values, so the cost is one score of all rows for each distinct one; more than MOST_DISTINCT
    gives None.
    """
    whole, rows = score(rows)[metric].value, _comparable(score, metric, rows)
    keys = [json.dumps(row, sort_keys=True, default=str) for row in rows]
    if whole is None or len(rows) < 2 or len(set(keys)) > MOST_DISTINCT:
        return None
    score_of: dict[str, float] = {}
    for place, key in enumerate(keys):
        if key not in score_of:
            rest = score([*rows[:place], *rows[place + 1 :]])[metric].value
            if rest is None:
                return None
            score_of[key] = round(len(rows) * whole - (len(rows) - 1) * rest, DECIMALS)
    return tuple(score_of[key] for key in keys)


def _comparable(score: Scorer, metric: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the rows without what makes each unique, where their score is the same without it."""
    short = [{name: value for name, value in row.items() if name not in ASIDE} for row in rows]
    try:
        return short if score(short)[metric] == score(rows)[metric] else rows
    except KeyError:
        return rows


def from_store(records: Iterable[RunRecord], store: Store) -> list[Line]:
    """Return the lines of all finished runs whose predictions are there. Raises ValueError for changed predictions."""
    lines: list[Line] = []
    for record in records:
        file = record.predictions_file
        if record.status != "success" or file is None or record.task is None:
            continue
        if not (store.folder(record.run_id) / file.path).is_file():
            continue
        rows, metric = store.read_rows(record.run_id, file), record.task.metric_primary
        if counts_as_zero(record):  # so does the correlation of all rows but one
            items = (0.0,) * len(rows)
        else:
            items = _imported_items(rows) if record.imported else _own_items(record, rows, metric)
        if items is not None:
            base = None if base_score(record) is None else _own_items(record, rows, base_metric(metric))
            lines.append(Line(record.run_id, file.sha256, metric, items, _clusters(rows), base))
    return lines


def _own_items(record: RunRecord, rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, ...] | None:
    scorer = _scorer(record)
    return item_scores(scorer, metric, rows) if scorer else None


def base_score(record: RunRecord) -> float | None:
    """Return the untouched model's primary score, None where the run's task does not score the backbone."""
    if record.imported or record.task is None:
        return None
    of_split = (record.metrics or {}).get(record.task.split_primary, {})
    score = of_split.get(base_metric(record.task.metric_primary))
    return None if score is None else score.value


def _imported_items(rows: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    """Return the scores that the source itself gave the rows; None where the run's score is not their mean."""
    return tuple(float(row["score"]) for row in rows) if all("score" in row for row in rows) else None


def _clusters(rows: Sequence[Mapping[str, Any]]) -> tuple[int, ...] | None:
    """Return the number of each row's cluster; a row without one is its own. None where no row has one."""
    labels = [row.get("cluster") for row in rows]
    if all(label is None for label in labels):
        return None
    from lorta.analysis.clusters import cluster_codes

    return tuple(cluster_codes(labels).tolist())


def stored_items(records: Iterable[RunRecord], store: Store) -> ItemScores:
    """Return the scores of rows of finished runs of a store, each computed once and then kept in its run's folder.

    A run whose predictions were changed has none, and a warning says so.
    """
    kept: dict[str, tuple[float, ...]] = {}
    for record in records:
        try:
            line = _line_of(record, store)
        except ValueError as error:
            warnings.warn(f"run {record.run_id} has no scores of its rows: {error}", stacklevel=2)
            continue
        if line is not None:
            keep_line(line, store)
            kept[line.run_id] = line.scores
    return kept


def _line_of(record: RunRecord, store: Store) -> Line | None:
    """Return the scores of a run's rows as they are kept, else from its predictions, None without either."""
    return _kept_line(record, store) or next(iter(from_store([record], store)), None)


def keep_line(line: Line, store: Store) -> None:
    """Keep the scores of a run's rows in its folder."""
    path = store.folder(line.run_id) / KEPT_NAME
    if not path.is_file():
        with suppress(OSError):  # who may only read a store computes them again
            write_atomically(path, line.to_json() + "\n")


def _kept_line(record: RunRecord, store: Store) -> Line | None:
    """Return what is kept of a run's rows, None where it is not there, torn, or of another attempt."""
    try:
        line = Line.from_json((store.folder(record.run_id) / KEPT_NAME).read_text())
        _refuse_foreign(line, record)
        return line if line.base is not None or base_score(record) is None else None  # kept before bases were
    except (OSError, ValueError):
        with suppress(OSError):
            (store.folder(record.run_id) / KEPT_NAME).unlink()
        return None


def _scorer(record: RunRecord) -> Scorer | None:
    """Return how the record's task scores rows, or None with a warning when its code is not here.

    Of several metrics, the primary one alone is computed: a correlation is scored once for each row.
    """
    try:
        with trusting():
            task = build(record.config["task"])
        if record.task is not None and is_dataclass(task) and (metrics := getattr(task, "metrics", None)) is not None:
            primary = record.task.metric_primary
            task = replace(task, metrics=[name for name in metrics if name.endswith(primary)] or [primary])  # pyright: ignore
        return task.score  # pyright: ignore[reportAttributeAccessIssue]
    except (KeyError, ValueError) as error:
        warnings.warn(f"run {record.run_id} has no scores of its rows: {error}", stacklevel=2)
        return None


def items_file(results: Path, suite: str) -> Path:
    """Return where the scores of single rows of a suite are kept."""
    return results / "predictions" / f"{suite}.jsonl.gz"


def collect_items(records: Sequence[RunRecord], store: Store, results: Path, suite: str) -> int:
    """Keep the scores of rows beside a suite's records and return how many runs have them.

    What was kept before, of the same predictions, is not computed again. Raises ValueError for predictions
    or kept scores that are not those of the records.
    """
    path = items_file(results, suite)
    lines = {line.run_id: line for line in read_lines(path, records)}
    for record in records:
        if record.run_id not in lines and (line := _line_of(record, store)) is not None:
            lines[record.run_id] = line
    if lines:
        write_items(lines.values(), path)
        seal(path)
    return len(lines)


def write_items(lines: Iterable[Line], path: Path) -> None:
    """Write lines, ordered by signature, to a file whose bytes depend on them alone."""
    text = "".join(f"{line.to_json()}\n" for line in sorted(lines, key=lambda line: line.run_id))
    write_atomically(path, gzip.compress(text.encode(), mtime=0))


def read_items(path: Path, records: Iterable[RunRecord]) -> ItemScores:
    """Return the item scores of these records, as `read_lines` finds them."""
    return {line.run_id: line.scores for line in read_lines(path, records)}


def read_lines(path: Path, records: Iterable[RunRecord]) -> list[Line]:
    """Return the lines of these records, or nothing when there is no such file.

    Raises ValueError for a line that is torn, or belongs to other predictions, another metric or another score than the
    record of its run.
    """
    if not path.is_file():
        return []
    known = {record.run_id: record for record in records}
    lines: list[Line] = []
    for number, text in enumerate(gzip.decompress(path.read_bytes()).decode().splitlines(), 1):
        try:
            line = Line.from_json(text)
            if line.run_id in known:
                _refuse_foreign(line, known[line.run_id])
                lines.append(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {str(error).rstrip('.')}; export the suite again.") from error
    return lines


def _refuse_foreign(line: Line, record: RunRecord) -> None:
    file, score = record.predictions_file, record.primary_score
    if file is None or file.sha256 != line.predictions_sha256:
        raise ValueError(f"run {line.run_id} has other predictions than these items come from")
    if record.task is None or score is None or record.task.metric_primary != line.metric or score.n != len(line.items):
        raise ValueError(f"run {line.run_id} has another primary metric or number of rows than these items")
    for items, value in ((line.items, score.value), (line.base, base_score(record))):
        binary = items is not None and set(items) <= {0.0, 1.0}
        if items is not None and binary and not math.isclose(sum(items) / score.n, value or 0, abs_tol=1e-6):
            raise ValueError(f"run {line.run_id} has a score of {value}, its items average {sum(items)}/{score.n}")
