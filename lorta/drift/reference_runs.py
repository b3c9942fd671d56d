"""Drift: whether a reference run, a tiny finished run with its files, still comes out as it did, and where it does not.

Three looks, from the cheapest: its stored predictions are scored again, its stored adapter predicts again (both are
evaluation), and the run is trained again from the start. Under its versions and processor all are equal, to rounding
where an adapter is reloaded.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lorta.config import identity
from lorta.planning.spec import RunSpec
from lorta.records.record import Environment, Hardware, RunRecord, Score
from lorta.records.store import Store
from lorta.runner.reload import Reloaded, reload_run
from lorta.system import provenance

WATCHED = (  # packages whose code a reference run runs
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "evaluate",
)
KERNELS = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # variables that choose them
# Largest differences allowed under other versions or on another processor, where sums are rounded otherwise. Ours: a
# hundred times or more what torch's kernels for other instruction sets gave on one processor (predictions 1e-5, losses
# 2e-7, weights 2e-5), and far below what a changed optimizer or start gives
# Under the same ones the rest is exact; a reloaded adapter may hold its update in other shapes (AdaLoRA writes pruned
# ranks), and sums of other shapes are rounded otherwise: 7e-7 was seen, a hundred units of float32 in a logit are 1e-5
ROUNDING = {"scores": 0.0, "predictions": 1e-5, "losses": 0.0, "weights": 0.0}
TOLERANCES = {"scores": 1e-9, "predictions": 1e-3, "losses": 1e-4, "weights": 2e-3}


@dataclass(frozen=True)
class Look:
    """One comparison with the reference run: the largest absolute difference, and what is said about it."""

    kind: str  # evaluation | training
    name: str  # a key of TOLERANCES
    difference: float
    detail: str

    def drifted(self, exact: bool) -> bool:
        """Return whether the difference is more than may be."""
        return self.difference > self.allowed(exact)

    def allowed(self, exact: bool) -> float:
        """Return the largest difference that is no drift."""
        return (ROUNDING if exact else TOLERANCES)[self.name]


@dataclass(frozen=True)
class Drift:
    """What came of one reference run. `changes`: versions and hardware that differ; without any, all must be equal."""

    title: str
    changes: tuple[str, ...]
    looks: tuple[Look, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Where it drifted: evaluation, training, both, or nowhere."""
        return tuple(dict.fromkeys(look.kind for look in self.looks if look.drifted(not self.changes)))


def changes_since(record: RunRecord) -> tuple[str, ...]:
    """Return what is not as it was when the reference run was recorded, of what can move its numbers."""
    now, then = provenance.environment(), record.environment
    here, there = provenance.hardware(), record.hardware
    assert then is not None and there is not None
    return (*_versions(then, now), *_machine(there, here), *_kernels(then, now))


def _versions(then: Environment, now: Environment) -> Iterator[str]:
    if then.python != now.python:
        yield f"python {then.python} -> {now.python}"
    for name in WATCHED:
        if then.packages.get(name) != now.packages.get(name):
            yield f"{name} {then.packages.get(name)} -> {now.packages.get(name)}"


def _kernels(then: Environment, now: Environment) -> Iterator[str]:
    for name in KERNELS:
        if then.env_vars.get(name) != now.env_vars.get(name):
            yield f"environment variable {name}: {then.env_vars.get(name)} -> {now.env_vars.get(name)}"


def _machine(then: Hardware, now: Hardware) -> Iterator[str]:
    if then.cpu != now.cpu:
        yield f"{then.cpu} -> {now.cpu}"
    if then.gpu_name != now.gpu_name:
        yield f"GPU {then.gpu_name} -> {now.gpu_name}"


def check(folder: Path, conf: Path) -> Drift:
    """Return the drift of the reference run in a run folder.

    Raises ValueError for a folder that is no successful run, or one whose settings, model or data are no longer there:
    such a reference run has to be recorded again.
    """
    reloaded = reload_run(folder, conf)
    record, store = reloaded.record, Store(folder.parent)
    assert record.predictions_file is not None and record.history_file is not None and record.adapter is not None
    stored = store.read_rows(record.run_id, record.predictions_file)
    looks = [_rescored(reloaded, stored)]
    with TemporaryDirectory() as place:
        looks.append(_predicted_again(reloaded, folder, conf, stored, Path(place)))
        looks += _trained_again(reloaded, store, folder, Path(place))
    rank = "" if record.adapter.rank is None else f" r={record.adapter.rank}"
    title = f"{record.run_id} {record.adapter.name}{rank} {reloaded.task.name} seed {record.seed}"
    return Drift(title, changes_since(record), tuple(looks))


def _rescored(reloaded: Reloaded, stored: Sequence[Mapping[str, Any]]) -> Look:
    """Score the stored predictions: only the metric's code and its libraries can make a difference."""
    difference = _score_difference(_scores(reloaded.record), reloaded.task.score(stored))
    detail = f"{len(stored)} stored predictions scored again"
    return Look("evaluation", "scores", difference, detail)


def _predicted_again(
    reloaded: Reloaded, folder: Path, conf: Path, stored: Sequence[Mapping[str, Any]], place: Path
) -> Look:
    """Let the stored adapter predict: the model's forward pass, the tokenizer and the rows come into it."""
    from lorta.api.holdout import load_splits

    settings, task = reloaded.settings, reloaded.task
    plan = task.plan_data(settings.data, settings.model.data)
    data = load_splits(task, plan, settings.data, reloaded.backbone.tokenizer, place / "cache")
    base_predictions = None
    if task.predicts_with_base:
        base = reload_run(folder, conf, base_only=True)
        base_predictions = task.predict_base(base.context(data, place))
    rows = task.predict(reloaded.model, reloaded.context(data, place, base_predictions))
    difference = _difference(stored, rows)
    differing = abs(len(rows) - len(stored)) + sum(before != now for before, now in zip(stored, rows, strict=False))
    detail = f"predicted again by the stored adapter: {differing} of {len(stored)} rows differ"
    return Look("evaluation", "predictions", difference, detail)


def _trained_again(reloaded: Reloaded, store: Store, folder: Path, place: Path) -> list[Look]:
    """Run the reference run from the start: losses are compared, step by step, and the weights that come out."""
    from lorta.records.store import ADAPTER
    from lorta.runner.execute import execute

    before = reloaded.record
    again = Store(place / "runs")
    places = {"runs": str(again.root), "cache": str(place / "cache"), "force": True}
    settings = reloaded.settings.model_copy(update={"runtime": reloaded.settings.runtime.model_copy(update=places)})
    task, files = reloaded.task, reloaded.files
    data, geometry = task.plan_data(settings.data, settings.model.data), task.geometry(files.config)
    spec = RunSpec(settings, reloaded.adapter, task, data, files, geometry, before.overrides, before.choices)
    if spec.signature != identity.run_id(before.config):
        raise ValueError(
            f"{folder}: its settings now mean run {spec.signature}: record it again (lorta drift --record)"
        )
    after = execute(spec)
    if after.status != "success" or after.history_file is None or before.history_file is None:
        why = after.failure.message if after.failure else after.status
        return [Look("training", "losses", math.inf, f"trained again: it failed ({why})")]
    histories = store.read_rows(before.run_id, before.history_file), again.read_rows(after.run_id, after.history_file)
    losses = [[{"loss": row.get("loss"), "step": row.get("step")} for row in rows] for rows in histories]
    weights = _weight_difference(folder / ADAPTER, again.folder(after.run_id) / ADAPTER)
    scores = _score_difference(_scores(before), _scores(after))
    detail = f"trained again: losses of {len(losses[0])} entries"
    return [
        Look("training", "losses", _difference(*losses), detail),
        Look("training", "weights", weights, f"trained again: weights (scores then differ by {scores:g})"),
    ]


def _scores(record: RunRecord) -> dict[str, Score]:
    assert record.metrics is not None and record.task is not None
    return record.metrics[record.task.split_primary]


def _score_difference(then: Mapping[str, Score], now: Mapping[str, Score]) -> float:
    names = {name: (then[name].value if name in then else None) for name in {**then, **now}}
    return _difference([names], [{name: now[name].value if name in now else None for name in names}])


def _weight_difference(then: Path, now: Path) -> float:
    """Return the largest difference between the tensors of two adapter folders, infinite where names differ."""
    from safetensors.torch import load_file

    files = [sorted(folder.glob("*.safetensors")) for folder in (then, now)]
    tensors = [{f"{file.name} {k}": v for file in of_one for k, v in load_file(file).items()} for of_one in files]
    if tensors[0].keys() != tensors[1].keys():
        return math.inf
    return max((float((tensors[0][name] - tensors[1][name]).abs().max()) for name in tensors[0]), default=0.0)


def _difference(then: Any, now: Any) -> float:
    """Return the largest absolute difference of numbers in two JSON values, infinite where anything else differs."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return _difference([then.get(key) for key in {**then, **now}], [now.get(key) for key in {**then, **now}])
    if isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            return math.inf
        return max((_difference(one, other) for one, other in zip(then, now, strict=True)), default=0.0)
    if then == now:
        return 0.0
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (then, now))
    distance = abs(then - now) if numbers else math.inf
    return distance if math.isfinite(distance) else math.inf
