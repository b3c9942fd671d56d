"""lm-evaluation-harness on a run's own evaluation questions, or on its own tasks: a second opinion on our scores.

The `lm_eval` package is a development dependency. Options are scored by its `multiple_choice`, numbers by its
`generate_until` and a regular expression; prompts, rows and model are the run's.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from experiments.generation import Generation
from experiments.questions.scores import marked_answer
from experiments.questions.task import QuestionTask
from lorta.runner.reload import Reloaded

NAME = "second_opinion"


def wrapped(run: Reloaded) -> Any:
    """Return lm_eval's wrapper of the run's model. Raises ValueError when the package is not installed."""
    try:
        from lm_eval.models import huggingface
    except ImportError as error:
        raise ValueError("the check with lm_eval needs lm-evaluation-harness: pip install 'lorta[dev]'") from error
    make: Any = huggingface.HFLM  # decorated, which hides its parameters
    return make(
        pretrained=run.model,
        tokenizer=run.backbone.tokenizer,
        batch_size=run.settings.trainer.per_device_eval_batch_size,
        max_length=run.settings.data.max_length + 1024,
    )


def own_questions(run: Reloaded, folder: Path) -> dict[str, dict[str, float]]:
    """Score the run's evaluation questions here and by lm_eval; write lm_eval's task into `folder`.

    Returns metrics under "ours" and "lm_eval", and under "difference" the largest one of two log-probabilities (nats),
    or the fraction of rows whose texts differ. Options are compared by the sum of their log-probabilities, which is
    what lm_eval's `acc` takes. Raises ValueError for a task that lm_eval has no metric for.
    """
    task = run.task
    if not isinstance(task, QuestionTask) or task.scoring not in ("likelihood", "number"):
        raise ValueError(f"task={task.name}: lm_eval has no metric for it; options and numbers it can score")
    plan = task.plan_data(run.settings.data, run.settings.model.data)
    if plan.fingerprints["evaluation"] != run.record.config["fingerprints"]["evaluation"]:
        raise ValueError(f"task={task.name}: the evaluation rows are no longer those of run {run.record.run_id}")
    data = task.load_data(plan, run.settings.data, run.backbone.tokenizer, folder)
    ours = replace(task, normalise="sum")
    predictions = ours.predict(run.model, run.context(data, folder))
    scores = ours.score(predictions)
    _write_task(task, run, plan.source, {row.told["idx"] for row in data.evaluation}, folder)
    result = _evaluate(run, [NAME], folder)
    return {
        "ours": {name: score.value for name, score in scores.items() if score.value is not None},
        "lm_eval": _metrics(result)[NAME],
        "difference": _difference(predictions, result["samples"][NAME]),
    }


def _difference(predictions: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    theirs = {sample["doc_id"]: sample["resps"] for sample in samples}
    if "text" in predictions[0]:
        differ = [row["text"].strip() != theirs[place][0][0].strip() for place, row in enumerate(predictions)]
        return {"texts": sum(differ) / len(differ)}
    pairs = [
        (mine, float(option[0][0]))
        for place, row in enumerate(predictions)
        for mine, option in zip(row["scores"], theirs[place], strict=True)
    ]
    return {"log_probability": max(abs(mine - other) for mine, other in pairs)}


def run_tasks(run: Reloaded, names: Sequence[str], include: Path | None) -> dict[str, dict[str, float]]:
    """Return lm_eval's metrics by task; `include` is a folder of task files, without which its own tasks are found."""
    return _metrics(_evaluate(run, names, include))


def _evaluate(run: Reloaded, names: Sequence[str], include: Path | None) -> Mapping[str, Any]:
    model = wrapped(run)
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    evaluate: Any = evaluator.simple_evaluate  # decorated likewise

    manager = TaskManager(include_path=str(include) if include else None, include_defaults=include is None)
    return evaluate(model, tasks=list(names), task_manager=manager, bootstrap_iters=0)


def _metrics(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {key: value for key, value in metrics.items() if isinstance(value, float) and "stderr" not in key}
        for name, metrics in result["results"].items()
    }


def _write_task(task: QuestionTask, run: Reloaded, source: Any, scored: Collection[Any], folder: Path) -> None:
    rows = [
        {"prompt": question.prompt, "options": list(question.options), "correct": list(question.correct)}
        | {"answer": question.references[0].replace(",", "")}
        for idx, question in task.evaluation_questions(source, run.settings.data)
        if idx in scored
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{NAME}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    node = {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file.resolve())}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
    }
    node |= _choices() if task.scoring == "likelihood" else _numbers(task)
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(node), encoding="utf-8")


def _choices() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "correct",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }


def _numbers(task: QuestionTask) -> dict[str, Any]:
    how = Generation(**task.generation)
    pattern = marked_answer(task.mark)
    return {
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": list(how.stop), "do_sample": False, "max_gen_toks": how.max_new_tokens},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": [","]}
        ],
        "filter_list": [
            {"name": "marked", "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        ],
    }
