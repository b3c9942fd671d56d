"""Scores of a user's task: the known metrics, and a function in a Python file of the user. No torch."""

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

from experiments.metrics import OF_NUMBERS, score
from experiments.own.table import Kind, in_order
from lorta.config.instantiate import trusts_file
from lorta.config.places import own_folders
from lorta.records.sections import Score

OF_LABELS = ("accuracy", "f1_macro", "matthews_correlation")
KNOWN: dict[Kind, tuple[str, ...]] = {"classes": OF_LABELS, "numbers": OF_NUMBERS}
_run_already: set[Path] = set()  # files that this command has been given by its own words
Metric = Callable[[list[Any], list[Any]], float]


def metric_name(metric: str) -> str:
    """Return what a metric is called in tables: the function's name of FILE.py:FUNCTION."""
    return metric.rpartition(":")[2]


def check_metrics(task: str, kind: Kind, metrics: Sequence[str], primary: str) -> None:
    """Raise ValueError for a metric that is not there, and for a primary one that is not among them."""
    names = [metric_name(metric) for metric in metrics]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"task.metrics: two metrics of task={task} are called {twice[0]}: rename one")
    for metric in metrics:
        if ":" in metric:
            own_metric(metric)
        elif metric not in KNOWN[kind]:
            raise ValueError(
                f"task.metrics: there is no metric {metric} of {kind} for task={task}; there are "
                f"{', '.join(KNOWN[kind])}, and your own as FILE.py:FUNCTION"
            )
    if primary not in names:
        raise ValueError(f"task.primary={primary}: task={task} has the metrics {', '.join(names)}, name one of them.")


def own_metric(metric: str) -> Metric:
    """Return the function that FILE.py:FUNCTION names; FILE is looked for here and in the folders of --conf.

    Raises ValueError when there is none, or it does not take predictions and references.
    """
    file, function = metric_file(metric), metric_name(metric)
    if file not in _run_already and not trusts_file(file):
        raise ValueError(
            f"task.metrics: {metric} is code of {file.parent}, which settings from elsewhere would run: read it, and "
            "name the folder if you trust it (--conf FOLDER, or --code FOLDER)"
        )
    module = _module(file, file.stat().st_mtime_ns)
    _run_already.add(file)
    call: Any = getattr(module, function, None)
    if not callable(call):
        raise ValueError(f"task.metrics: {file} has no function {function}")
    try:
        inspect.signature(call).bind([], [])
    except TypeError as error:
        raise ValueError(f"task.metrics: {metric} must take two lists, predictions and references: {error}") from error
    return cast(Metric, call)


def metric_file(metric: str) -> Path:
    """Return the file of FILE.py:FUNCTION. Raises ValueError when there is none."""
    named = Path(metric.rpartition(":")[0]).expanduser()
    places = [folder / named for folder in (Path.cwd(), *own_folders())]
    for file in places:
        if file.is_file():
            return file
    raise ValueError(f"task.metrics: no file {named} for {metric}; looked for {', '.join(map(str, places))}")


@lru_cache
def _module(file: Path, changed: int) -> Any:
    """Run a file of Python and return its names; again where it has `changed`."""
    spec = spec_from_file_location(f"own_metric_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"task.metrics: {file} is no Python file")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"task.metrics: {file} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def metrics_sha256(metrics: Sequence[str]) -> str | None:
    """Return the hash of the files of the user's own metrics, None where there are none."""
    files = sorted({metric_file(metric) for metric in metrics if ":" in metric})
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest() if files else None


def try_metrics(metrics: Sequence[str], labels: list[Any]) -> None:
    """Call the user's own metrics on real labels. Raises ValueError for one that fails or returns no finite number."""
    turned = labels[1:] + labels[:1]
    for metric in (metric for metric in metrics if ":" in metric):
        for predictions in (labels, turned):
            value = _own_score(metric, predictions, labels)
            if value.value is None:
                raise ValueError(f"task.metrics: {metric} on {len(labels)} labels of the scored rows: {value.reason}")


def score_rows(kind: Kind, metrics: Sequence[str], predictions: list[Any], references: list[Any]) -> dict[str, Score]:
    """Return every metric by name. Classes are texts; a Score without a value says why."""
    known = [metric for metric in metrics if ":" not in metric]
    own = [metric for metric in metrics if ":" in metric]
    scores: dict[str, Score] = {}
    if known:
        numbers: tuple[list[Any], ...] = (predictions, references)
        if kind == "classes":
            number_of = {label: number for number, label in enumerate(in_order([*predictions, *references]))}
            numbers = tuple([number_of[label] for label in column] for column in (predictions, references))
        scores |= score("own", *numbers, metrics=known)
    scores |= {metric_name(metric): _own_score(metric, predictions, references) for metric in own}
    return {metric_name(metric): scores[metric_name(metric)] for metric in metrics}


def _own_score(metric: str, predictions: list[Any], references: list[Any]) -> Score:
    count = len(references)
    if not count:
        return Score(value=None, n=0, reason="no rows were scored")
    try:
        value = float(own_metric(metric)(list(predictions), list(references)))
    except (Exception, SystemExit) as error:  # a user's code may raise anything; other metrics stand all the same
        return Score(value=None, n=count, reason=f"{metric} raised {type(error).__name__}: {error}")
    if math.isfinite(value):
        return Score(value=value, n=count)
    return Score(value=None, n=count, reason=f"{metric} returned {value}")
