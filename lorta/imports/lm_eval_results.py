"""Results of lm-evaluation-harness as records: results_DATE.json, and samples_TASK_DATE.jsonl of `--log_samples`.

Every task of a results file is a run of its model. A model with `peft=` is its backbone with an adapter; others are
backbones without one, or rows of a backbone that --model names. What decides the scores besides the model (versions,
maximum length, few-shot examples, prompts, limits, templates) is the protocol.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from lorta.imports.building import Facts, ImportedRun, Rows, build
from lorta.imports.documents import Document, parse, read_document, read_text
from lorta.records.canonical import sha256
from lorta.records.record import Imported, Score, Timing

DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
NO_FILTER = "none"
NO_ADAPTER = "no adapter"
GENERIC = re.compile(r"adapter|checkpoint-\d+|final|output|merged")  # folder names that say nothing about a run
# of a results file, which all its tasks share: key -> where it stands
SHARED = ("max_length", "lm_eval_version", "transformers_version", "system_instruction_sha", "chat_template_sha")
EXECUTION = ("model", "limit", "gen_kwargs", "model_dtype")
TORCH = re.compile(r"PyTorch version: (\S+)")
PERCENTAGES = ("bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum")  # metrics from 0 to 100
ROUNDING = 1e-6
WHAT = "this is no results file of lm-evaluation-harness"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the files do not say, or say of several: given on the command line."""

    name: str | None = None  # of the adapter
    seed: int | None = None  # of its training
    model: str | None = None  # the backbone of checkpoints without `peft=`
    metric: str | None = None  # such as acc_norm; None: the first of each task


class Sampled(NamedTuple):
    """The scored rows of a task: their scores in order of `doc_id`, and hashes of what was asked."""

    scores: Sequence[float] | None  # None where the score of all is not their mean
    documents: str
    prompts: str
    file: str
    sha256: str


def read_results(path: Path, choice: Choice) -> list[ImportedRun]:
    """Return the runs of a results file, or of all results files below a folder, with their samples.

    Raises ValueError, a sentence with file and line, for files that are no such results or contradict each other.
    """
    files = _files(path)
    if (choice.name or choice.seed is not None) and len(files) > 1:
        raise ValueError(f"--name and --seed are for one results file, {path} holds {len(files)}")
    return [run for file in files for run in _runs(read_document(file), choice)]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no {path}: name a results file of lm-evaluation-harness, or its --output_path")
    files = sorted(file for file in path.rglob("*.json") if DATE.search(file.name))
    if not files:
        raise ValueError(f"{path} holds no results_DATE.json: run lm_eval with --output_path and --log_samples")
    return files


def _runs(document: Document, choice: Choice) -> list[ImportedRun]:
    results = document.get(dict, "results")
    tasks = [task for task in results if document.find(dict, "configs", task) is not None]  # others are groups of them
    if not tasks:
        raise document.error(f"no task of `results` has its configuration in `configs`: {WHAT}", "results")
    return [_run(document, task, choice) for task in tasks]


def _run(document: Document, task: str, choice: Choice) -> ImportedRun:
    key = _metric(document, task, choice.metric)
    metric, _, kind = key.partition(",")
    shown = metric if kind == NO_FILTER else key
    samples = _samples(document, task, metric, kind)
    scored = document.get(int, "n-samples", task, "effective")
    higher = document.find(bool, "higher_is_better", task, metric)
    if higher is None:
        raise document.error(
            f"it is not said whether more {metric} is better: name another with --metric", "higher_is_better"
        )
    score = _score(document, task, key, scored, higher)
    rows = _scored_rows(document, task, key, scored, samples)
    model, adapter, name = _names(document, choice)
    created = _created(document)
    seconds = _seconds(document)
    facts = Facts(
        imported=_imported(document, task, name, samples),
        adapter=choice.name or adapter,
        settings={},
        task=task,
        data_source="local"
        if document.find(str, "configs", task, "dataset_path") in ("json", "csv", "text")
        else "hub",
        data_revision=_version(document, task),
        data_fingerprint=samples.documents if samples else "not said",
        split=_split(document, task),
        metric=shown,
        higher_is_better=higher,
        metrics=_metrics(document, task, scored) | {shown: score},
        scored=scored,
        most_scored=scored if scored < document.get(int, "n-samples", task, "original") else None,
        model=choice.model or model.rpartition("/")[2],
        model_id=choice.model or model,
        model_revision=document.find(str, "config", "model_sha") or None,
        dtype=(document.find(str, "config", "model_dtype") or "not said").removeprefix("torch."),
        parameters_total=document.find(int, "config", "model_num_parameters"),
        seed=_seed(document, choice),
        created_at=created.isoformat(),
        ended_at=(created + timedelta(seconds=seconds or 0)).isoformat(),
        time=Timing(eval_s=seconds),
        machine=document.find(str, "pretty_env_info") or "not said",
        reasons={"time.train_s": "lm-evaluation-harness does not train"},
    )
    return ImportedRun(build(facts), {"predictions": rows} if rows else {})


def _split(document: Document, task: str) -> str:
    """Return the split that lm-evaluation-harness scores: the test split where a task has one."""
    splits = [document.find(str, "configs", task, f"{name}_split") for name in ("test", "validation")]
    return next((split for split in splits if split), "test")


def _metric(document: Document, task: str, wanted: str | None) -> str:
    """Return the key of the primary metric such as "acc,none". Raises ValueError where a task has it not."""
    values = document.get(dict, "results", task)
    keys = [key for key, value in values.items() if "," in key and "_stderr" not in key and _is_number(value)]
    wished = [key for key in keys if wanted in (None, key, key.partition(",")[0])]
    if not wished:
        listed = ", ".join(keys) or "none with a number"
        what = f"has no metric {wanted}, but {listed}" if wanted else f"has no metric with a number: {WHAT}"
        raise document.error(f"task {task} {what}", "results", task)
    return wished[0]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _score(document: Document, task: str, key: str, scored: int, higher: bool) -> Score:
    """Return the score on a scale that ends at 1, where more is better."""
    value = document.get(float, "results", task, key) / _scale(key)
    if higher and abs(value) > 1:
        raise document.error(
            f"{key} of {task} is {value}, more than 1: name another metric with --metric", "results", task, key
        )
    return Score(value=value, n=scored)


def _metrics(document: Document, task: str, scored: int) -> dict[str, Score]:
    """Return all metrics as they are in the file, without those of filters that did not give the primary one."""
    values = document.get(dict, "results", task)
    plain = {key.removesuffix(f",{NO_FILTER}"): value for key, value in values.items() if "_stderr" not in key}
    return {key: Score(value=float(value), n=scored) for key, value in plain.items() if _is_metric(key, value)}


def _is_metric(key: str, value: Any) -> bool:
    return key not in ("sample_len",) and _is_number(value)


def _samples(document: Document, task: str, metric: str, kind: str) -> Sampled | None:
    """Return the rows of a task as `--log_samples` wrote them, None without that option."""
    date = DATE.search(document.path.name)
    file = document.path.with_name(f"samples_{task}_{date.group(1)}.jsonl") if date else None
    if file is None or not file.is_file():
        return None
    text, digest = read_text(file)
    rows = [_sample(line, file, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    of_filter = {int(row["doc_id"]): row for row in rows if row.get("filter", NO_FILTER) == kind}
    if len(of_filter) < sum(row.get("filter", NO_FILTER) == kind for row in rows):
        raise ValueError(
            f"{file}, line 1: rows have the same doc_id twice: lm_eval wrote two evaluations into one file"
        )
    ordered = [of_filter[place] for place in sorted(of_filter)]
    values = [row.get(metric) for row in ordered]
    scores = [float(value) for value in values if _is_number(value)]  # pyright: ignore[reportArgumentType]
    documents, prompts = (sha256([row.get(name) for row in ordered]) for name in ("doc_hash", "prompt_hash"))
    return Sampled(scores if len(scores) == len(values) else None, documents, prompts, file.name, digest)


def _sample(line: str, file: Path, number: int) -> dict[str, Any]:
    values = parse(line, file, number)
    if not isinstance(values, dict) or type(values.get("doc_id")) is not int:
        raise ValueError(
            f"{file}, line {number}: a row needs a doc_id, a whole number: this is no file of --log_samples"
        )
    return values


def _scored_rows(document: Document, task: str, key: str, scored: int, samples: Sampled | None) -> Rows:
    """Return the rows with their scores; none where the run's score is not their mean.

    Raises ValueError for samples that are not those of the results: another number of rows, or another mean.
    """
    if samples is None or samples.scores is None:
        return []
    file, results, count = document.path.with_name(samples.file), document.path.name, len(samples.scores)
    if count != scored:
        raise ValueError(f"{file}, line {count}: it has {count} rows of {key}, {results} says {scored}")
    value, mean = document.get(float, "results", task, key), sum(samples.scores) / scored
    if not math.isclose(mean, value, abs_tol=ROUNDING * max(1.0, abs(value))):
        if _is_mean(document, task, key):
            raise ValueError(f"{file}, line 1: the mean of its {key} is {mean:.6g}, {results} says {value:.6g}")
        return []
    return [{"idx": place, "score": score / _scale(key)} for place, score in enumerate(samples.scores)]


def _scale(key: str) -> float:
    return 100.0 if key.partition(",")[0] in PERCENTAGES else 1.0


def _is_mean(document: Document, task: str, key: str) -> bool:
    listed = document.find(list, "configs", task, "metric_list") or []
    metric = key.partition(",")[0]
    named = [one for one in listed if isinstance(one, Mapping) and one.get("metric") == metric]
    return any(one.get("aggregation") == "mean" for one in named)


def _names(document: Document, choice: Choice) -> tuple[str, str, str]:
    """Return the backbone, the adapter, and what the source calls the run."""
    given = document.at(("config", "model_args")) or {}
    pairs = [word.partition("=") for word in str(given).split(",") if word]
    words: Mapping[str, Any] = given if isinstance(given, dict) else {key: value for key, _, value in pairs}
    name = document.find(str, "model_name") or str(words.get("pretrained") or document.get(str, "config", "model"))
    backbone = str(words.get("pretrained") or words.get("model") or name)
    if words.get("peft"):
        return backbone, _of_path(str(words["peft"])), str(words["peft"])
    return backbone, (_of_path(backbone) if choice.model else NO_ADAPTER), name


def _of_path(path: str) -> str:
    """Return a name for an adapter or a checkpoint: the last folder that says something."""
    parts = [part for part in path.split("/") if part]
    telling = [part for part in parts if not GENERIC.fullmatch(part)]
    last = parts[-1] if parts else path
    steps = f"/{last}" if last.startswith("checkpoint-") and telling else ""
    return f"{telling[-1]}{steps}" if telling else last


def _imported(document: Document, task: str, name: str, samples: Sampled | None) -> Imported:
    shared = {key: _text(document.values.get(key)) for key in SHARED}
    config = document.get(dict, "config")
    torch = TORCH.search(document.find(str, "pretty_env_info") or "")
    execution = {key: _text(config.get(key)) for key in EXECUTION}
    multiturn = _text(document.values.get("fewshot_as_multiturn"))
    of_task = {
        "version": _version(document, task),
        "few-shot examples": _text(document.at(("n-shot", task))),
        "rows": samples.documents[:12] if samples else "not logged",
        "prompts": samples.prompts[:12] if samples else "not logged",
    }
    noted = {key: config.get(key) for key in ("batch_size", "device", "random_seed", "fewshot_seed", "torch_seed")}
    return Imported(
        format="lm_eval",
        name=name,
        files={document.path.name: document.sha256} | ({samples.file: samples.sha256} if samples else {}),
        protocol={
            **shared,
            **execution,
            "fewshot_as_multiturn": multiturn,
            "torch": torch.group(1) if torch else "not said",
        },
        task_protocol=of_task,
        noted={**noted, "commit": document.find(str, "git_hash")},
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _version(document: Document, task: str) -> str:
    return _text(document.at(("versions", task)))


def _seed(document: Document, choice: Choice) -> int:
    """Return the seed of training as it was given, else that of the evaluation."""
    return choice.seed if choice.seed is not None else document.find(int, "config", "random_seed") or 0


def _created(document: Document) -> datetime:
    return datetime.fromtimestamp(document.get(float, "date"), UTC)


def _seconds(document: Document) -> float | None:
    text = document.find(str, "total_evaluation_time_seconds")
    try:
        return None if text is None else float(text)
    except ValueError as error:
        keys = "total_evaluation_time_seconds"
        raise document.error(f"{keys} must be a number of seconds, got {text}", keys) from error
