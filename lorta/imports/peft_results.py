"""Results of PEFT's method_comparison (https://github.com/huggingface/peft, folder method_comparison) as records.

A result is one JSON file with `run_info`, `train_info` and `meta_info`, as `log_results` of its utils.py writes it.
What a method may choose for itself (METHOD_SETTINGS) makes rows of a table; all other settings of training, the
revisions of the data and the versions of packages are the protocol, and runs of two protocols share no table.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lorta.imports.building import NOT_SAID, Facts, ImportedRun, build
from lorta.imports.documents import Document, read_document
from lorta.records.record import Imported, Parameters, Score, Timing

# of a training configuration: what method_comparison lets an experiment choose for its method
METHOD_SETTINGS = ("optimizer_type", "optimizer_kwargs", "autocast_adapter_dtype", "init_kv_cache_prefix")
ELSEWHERE = ("model_id", "seed", "eval_steps", "batch_size_eval", *METHOD_SETTINGS)  # not of the protocol's text
TEST = "test "  # a key such as "test accuracy" of the last entry of the metrics
MADE_UP_BYTES = 99_999_999  # what method_comparison writes for a checkpoint whose size it did not measure
TEST_ROWS = {"gsm8k": 1319}  # of data sets whose number of test rows the file does not state
STATUS = {"success": "success", "canceled": "cancelled", "failed": "cancelled"}


def read_results(path: Path) -> list[ImportedRun]:
    """Return the runs of a result file, or of all result files in a folder.

    Raises ValueError, a sentence with file and line, for a file that is no such result.
    """
    return [_run(read_document(file)) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no {path}: name a result of method_comparison, or a folder of results")
    files = sorted(path.glob("**/results/*.json")) or sorted(path.glob("*.json"))
    if not files:
        raise ValueError(f"{path} holds no result: it needs files such as results/lora--llama-3.2-3B-rank32.json")
    return files


def _run(document: Document) -> ImportedRun:
    name, status = document.get(str, "run_info", "experiment_name"), document.get(str, "train_info", "status")
    if status not in STATUS:
        raise document.error(f"train_info.status must be one of {', '.join(STATUS)}, got {status}", *STATUS_KEYS)
    created = _time(document, "run_info", "created_at")
    total = document.get(float, "run_info", "total_time")
    training, settings = document.get(dict, "run_info", "train_config"), _settings(document)
    rank = settings["peft_config"].get("r")
    task, revisions = _task(document)
    fingerprint = ", ".join(f"{data} {sha}" for data, sha in revisions.items())
    metric, value = _last(document) if status == "success" else ("accuracy", None)
    scored = _scored(document, task) if value is not None else 0
    model_id = document.get(str, "run_info", "train_config", "model_id")
    facts = Facts(
        imported=_imported(document, name, training, revisions),
        adapter=name.partition("/")[0],
        rank=rank if type(rank) is int and rank > 0 else None,  # OFT's is 0 where it is given a block size
        learning_rate=document.find(float, "run_info", "train_config", "optimizer_kwargs", "lr"),
        settings=settings,
        task=task,
        data_source="hub",
        data_revision=fingerprint,
        data_fingerprint=fingerprint,
        split="test",
        metric=metric,
        metrics={} if value is None else {metric: Score(value=value, n=scored)},
        scored=scored,
        model=model_id.rpartition("/")[2],
        model_id=model_id,
        model_revision=document.find(str, "meta_info", "model_info", "sha"),
        dtype=document.get(str, "run_info", "train_config", "dtype"),
        parameters_total=document.get(int, "train_info", "num_total_params"),
        parameters=_parameters(document),
        adapter_bytes=_bytes(document),
        max_steps=document.get(int, "run_info", "train_config", "max_steps"),
        seed=document.get(int, "run_info", "train_config", "seed"),
        created_at=created.isoformat(),
        ended_at=(created + timedelta(seconds=total)).isoformat(),
        time=Timing(wall_s=total, train_s=document.get(float, "train_info", "train_time")),
        machine=json.dumps([_packages(document), document.find(str, *ACCELERATOR)], sort_keys=True),
        status=STATUS[status],  # pyright: ignore[reportArgumentType]
        reason=None if status == "success" else document.find(str, "run_info", "error_msg") or f"it was {status}",
        reasons={"memory": "the source's peak includes evaluation; it is in imported.noted"} | _unmeasured(document),
    )
    return ImportedRun(build(facts), {"history": _history(document)})


STATUS_KEYS = ("train_info", "status")
ACCELERATOR = ("meta_info", "system_info", "accelerator")


def _time(document: Document, *keys: str) -> datetime:
    text = document.get(str, *keys)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise document.error(
            f"{'.'.join(keys)} must be a time such as 2026-07-16T01:54:44+00:00, got {text}", *keys
        ) from (error)


def _settings(document: Document) -> dict[str, Any]:
    """Return the method's configuration without what belongs to its place, and the training settings it chose."""
    given = document.find(dict, "run_info", "peft_config") or {}
    own = {key: _sorted(value) for key, value in given.items() if key != "peft_version"}
    training = document.get(dict, "run_info", "train_config")
    return {"peft_config": own, **{key: training[key] for key in METHOD_SETTINGS if key in training}}


def _sorted(value: Any) -> Any:
    """Return a list in order: PEFT writes sets of module names in any order."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value


def _imported(document: Document, name: str, training: Mapping[str, Any], data: Mapping[str, str]) -> Imported:
    protocol = {key: _text(value) for key, value in training.items() if key not in ELSEWHERE}
    train_info = document.get(dict, "train_info")
    noted = {key: value for key, value in train_info.items() if key.startswith("accelerator_memory")}
    entries = document.get(list, "train_info", "metrics")
    last = entries[-1] if entries and isinstance(entries[-1], dict) else {}
    noted |= {key: last[key] for key in ("forgetting", "drift") if _is_number(last.get(key))}
    commit = document.find(str, "meta_info", "package_info", "peft-commit-hash")
    return Imported(
        format="peft",
        name=name,
        files={document.path.name: document.sha256},
        protocol={**protocol, **_packages(document), **{f"data {one}": sha for one, sha in data.items()}},
        task_protocol={},
        noted={**noted, "accelerator": document.find(str, *ACCELERATOR), "commit": commit},
    )


def _packages(document: Document) -> dict[str, str]:
    """Return the versions of packages; commits are noted, and do not separate tables."""
    packages, ending = document.get(dict, "meta_info", "package_info"), "-version"
    return {name.removesuffix(ending): str(version) for name, version in packages.items() if name.endswith(ending)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _task(document: Document) -> tuple[str, dict[str, str]]:
    """Return the name of the data, and the revision of each set of them; a file names one set, or several by key."""
    info = document.get(dict, "meta_info", "dataset_info")
    several = {name: values for name, values in info.items() if isinstance(values, dict)}
    if several:
        return "+".join(several), {name: _sha(values) for name, values in several.items()}
    name = document.get(str, "run_info", "train_config", "dataset_id").rpartition("/")[2]
    return name, {name: _sha(info)}


def _sha(values: Mapping[str, Any]) -> str:
    return str(values.get("sha") or "unknown")[:12]


def _last(document: Document) -> tuple[str, float]:
    """Return the metric on the test split and its value, of the last entry."""
    entries = document.get(list, "train_info", "metrics")
    last = entries[-1] if entries else None
    names = [key for key in last if key.startswith(TEST)] if isinstance(last, dict) else []
    if len(names) != 1:
        raise document.error("the last entry of train_info.metrics needs one score of the test split", *METRICS)
    value = last[names[0]]  # pyright: ignore[reportOptionalSubscript]
    if not _is_number(value) or not 0 <= value <= 1:
        raise document.error(f"{names[0]} must be a number from 0 to 1, got {json.dumps(value)}", *METRICS, names[0])
    return names[0].removeprefix(TEST), float(value)


METRICS = ("train_info", "metrics")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _scored(document: Document, task: str) -> int:
    """Return the number of test rows. Raises ValueError where neither the file nor TEST_ROWS says it."""
    stated = document.find(int, "run_info", "train_config", "test_size")
    rows = stated or next((TEST_ROWS[name] for name in task.split("+") if name in TEST_ROWS), None)
    if rows is None:
        raise document.error(f"the number of test rows of {task} is not known", "meta_info", "dataset_info")
    return rows


def _parameters(document: Document) -> Parameters:
    """Return the counts; a run without a PEFT configuration trains weights of the model itself."""
    trainable, total = (document.get(int, "train_info", f"num_{kind}_params") for kind in ("trainable", "total"))
    own = 0 if document.find(dict, "run_info", "peft_config") is None else trainable
    return Parameters(adapter=own, head=0, other_trainable=trainable - own, trainable=trainable, total=total)


def _bytes(document: Document) -> int | None:
    size = document.find(int, "train_info", "file_size")
    return None if size == MADE_UP_BYTES else size


def _unmeasured(document: Document) -> dict[str, str]:
    return {} if _bytes(document) is not None else {"storage": NOT_SAID}


def _history(document: Document) -> list[dict[str, Any]]:
    """Return step and loss of the entries that have both, each step once."""
    entries = [entry for entry in document.get(list, *METRICS) if isinstance(entry, dict)]
    losses = {entry["step"]: entry["train loss"] for entry in entries if _is_number(entry.get("train loss"))}
    return [{"step": step, "loss": loss} for step, loss in losses.items() if type(step) is int]
