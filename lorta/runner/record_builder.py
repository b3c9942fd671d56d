"""What a record says of a run: the sections made from its spec, and those made from its results."""

import os
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.api.adapter import Adapter
from lorta.api.task import DataPlan, DataSplits
from lorta.config import identity
from lorta.config.settings import DataSettings
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone
from lorta.models.hub_cache import weights_sha256
from lorta.models.locate import ModelFiles
from lorta.models.quantization import dtype_of, quantization_of
from lorta.models.tokenizer import tokenizer_sha256
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.row_counts import RowCount
from lorta.records.sections import (
    AdapterSection,
    Batch,
    Failure,
    FailureKind,
    Memory,
    ModelSection,
    Parameters,
    ProtocolSection,
    Score,
    Split,
    Spread,
    Status,
    TaskSection,
    Throughput,
    Timing,
)
from lorta.runner.os_errors import NO_SPACE, os_error_behind
from lorta.system import provenance
from lorta.system.slurm_jobs import this_job
from lorta.system.source_files import sources_sha256
from lorta.training.metering import Stopwatch, measure_storage, rounded, weights_in

if TYPE_CHECKING:
    from lorta.training.trainer import TrainingOutcome

MACHINE_KEYS = ("runtime.", "data.root", "model.path")  # where files lie on one machine: no part of a record

MEMORY_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_AS)


def now() -> str:
    """Return the time in ISO-8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_record(spec: RunSpec, attempt: int = 1) -> RunRecord:
    """Return the record of a run about to start: identity, settings, and what is known without loading anything."""
    begun, unknown = now(), provenance.why_no_commit()
    return RunRecord(
        identity_version=identity.VERSION,
        run_id=spec.run_id,
        cell_id=spec.cell_id,
        config_hash=spec.config_hash,
        status="running",
        attempt=attempt,
        created_at=begun,
        slurm_job=this_job(),
        started_at=begun,
        seed=spec.settings.seed,
        config=spec.config,
        overrides=tuple(item for item in spec.overrides if not item.startswith(MACHINE_KEYS)),
        choices=dict(spec.choices),
        adapter=_adapter_section(spec),
        task=_task_section(spec),
        protocol=_protocol_section(spec),
        batch=_batch_section(spec),
        tuning=spec.tuned,
        budgets=spec.budgets,
        questions=spec.questions,
        code=replace(provenance.code(), sources_sha256=sources_sha256(spec.config)),
        environment=provenance.environment(),
        reasons={"code.git_sha": unknown} if unknown else {},
    )


def _adapter_section(spec: RunSpec) -> AdapterSection:
    return AdapterSection(
        name=spec.adapter.name,
        rank=spec.adapter.rank,
        projections=tuple(spec.settings.adapter.get("projections", ())) or None,
        learning_rate=spec.settings.trainer.learning_rate,
        head_learning_rate=spec.settings.trainer.head_learning_rate,
        settings=spec.config["adapter"],
    )


def _task_section(spec: RunSpec) -> TaskSection:
    task, plan, data = spec.task, spec.data, spec.settings.data
    return TaskSection(
        name=task.name,
        protocol=task.protocol,
        source=plan.source,
        revision=plan.revision,
        splits={use: Split(rows=0, fingerprint=value) for use, value in _split_prints(plan, data).items()},
        split_primary="evaluation",
        metric_primary=task.primary,
        higher_is_better=task.higher_is_better,
        test_is_validation=task.test_is_validation,
        max_train_samples=data.max_train_samples,
        max_eval_samples=data.max_eval_samples,
        labels=plan.labels or None,
    )


def _split_prints(plan: DataPlan, data: DataSettings) -> dict[str, str]:
    prints = {use: plan.fingerprints[use] for use in ("train", "evaluation") if use in plan.fingerprints}
    if not data.scores_training_rows:
        return prints
    return prints | {"evaluation": f"{prints['train']}, {data.holdout} rows held out"}


def _protocol_section(spec: RunSpec) -> ProtocolSection:
    trainer = spec.settings.trainer
    return ProtocolSection(
        selection=trainer.selection,
        tuned=spec.rate_was_searched,
        epochs=trainer.num_train_epochs,
        max_steps=trainer.max_steps if trainer.max_steps > 0 else None,
    )


def _batch_section(spec: RunSpec) -> Batch:
    micro, accumulation = (
        spec.settings.trainer.per_device_train_batch_size,
        spec.settings.trainer.gradient_accumulation_steps,
    )
    return Batch(effective=micro * accumulation, micro=micro, grad_accum=accumulation)


def with_rows(record: RunRecord, data: DataSplits) -> RunRecord:
    """Return the record with the number of rows that each split really has, and what became of the others."""
    record, rows = with_counts(record, data.counts), {"train": len(data.train), "evaluation": len(data.evaluation)}
    assert record.task is not None
    splits = {use: replace(split, rows=rows[use]) for use, split in record.task.splits.items()}
    return replace(record, task=replace(record.task, splits=splits))


def with_counts(record: RunRecord, counts: Mapping[str, RowCount]) -> RunRecord:
    """Return the record with what became of the rows of splits that a run could not go on with."""
    assert record.task is not None
    splits = {use: _counted(split, counts.get(use)) for use, split in record.task.splits.items()}
    return replace(record, task=replace(record.task, splits=splits))


def _counted(split: Split, count: RowCount | None) -> Split:
    if count is None:
        return split
    noted = dict(count.noted) or None
    return replace(split, rows=count.used, read=count.read, dropped=dict(count.dropped), noted=noted)


def model_section(spec: RunSpec, backbone: Backbone, files: ModelFiles) -> ModelSection:
    """Return the section of the backbone before an adapter is attached, its head included; read from the loaded model.

    Raises ValueError when its weights are not held as the settings say.
    """
    model = spec.settings.model
    if (held := quantization_of(backbone.model)) != model.quantization:
        raise ValueError(f"model.quantization={model.quantization or 'null'}, and the loaded model has {held}")
    tokenizer: Any = backbone.tokenizer
    return ModelSection(
        name=model.name
        if model.name != "custom"
        else (model.hub_id or os.path.basename(files.made_from or files.location)),
        id=model.hub_id or files.made_from or model.name,
        revision=model.revision or files.fingerprint,
        dtype=dtype_of(backbone.model),
        parameters_total=sum(weights_in(weight) for weight in backbone.model.parameters()),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        padding_side=tokenizer.padding_side,
        pad_token_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        quantization=held,
        weights_sha256=weights_sha256(files.location, files.revision) if files.revision else None,
        license=files.license,
        drawn=backbone.drawn,
    )


def require_planned_size(adapter: Adapter, geometry: Geometry, params: Parameters) -> None:
    """Raise ValueError when the attached method has another number of parameters than the plan said."""
    planned = adapter.parameters(geometry)
    if planned is not None and planned != params.adapter:
        raise ValueError(
            f"adapter={adapter.name} has {params.adapter:,} parameters on this model, and its closed form says "
            f"{planned:,}, by which it was planned: correct param_count in its YAML file."
        )


@dataclass(frozen=True)
class Results:
    """What a run that went through has measured, beside the time."""

    outcome: "TrainingOutcome"
    memory: Memory
    changed: int | None  # base weights, from adapters that can tell
    scores: dict[str, Score]
    spread: Spread | None
    rows_scored: int
    adapter: Path  # folder of the saved adapter


def finished(record: RunRecord, data: DataSplits, watch: Stopwatch, results: Results) -> RunRecord:
    """Return the final record of a run that went through."""
    assert record.params is not None
    outcome = results.outcome
    return replace(
        with_rows(record, data),
        status="success",
        ended_at=now(),
        params=replace(record.params, changed=results.changed),
        storage=measure_storage(results.adapter),
        memory=results.memory,
        time=timing_section(watch, outcome),
        throughput=throughput_section(watch, outcome, results.rows_scored),
        metrics={"evaluation": results.scores},
        spread=results.spread,
        train_loss_final=outcome.loss_final,
        grad_norm_max=outcome.grad_norm_max,
        nan_steps=0,
        hardware=provenance.hardware(),
        env_fingerprint=provenance.env_fingerprint(),
        reasons={**record.reasons, **reasons(record, results.memory, outcome.best_epoch)},
    )


def ended(record: RunRecord, data: DataSplits | None, status: Status, failure: Failure) -> RunRecord:
    """Return the final record of a run that did not go through; `data` are its rows, if it had read them."""
    record = record if data is None else with_rows(record, data)
    return replace(record, status=status, ended_at=now(), failure=failure)


def with_moved(record: RunRecord, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> RunRecord:
    """Return the record with the count of trained tensors, and of those that training really moved.

    Args:
        record: with its parameters.
        before: name -> hash of the tensors when training began.
        after: the same when it had ended.
    """
    assert record.params is not None
    still = [name for name, value in before.items() if after.get(name) == value]
    params = replace(record.params, tensors=len(before), tensors_moved=len(before) - len(still))
    why = f"{len(still)} of {len(before)} trained tensors are as they were at the start: {', '.join(still[:3])}"
    reasons = {"params.tensors_moved": why + (", ..." if len(still) > 3 else "")} if still else {}
    return replace(record, params=params, reasons={**record.reasons, **reasons})


def timing_section(watch: Stopwatch, outcome: "TrainingOutcome") -> Timing:
    """Return the seconds by phase; scoring of epochs counts as evaluation."""
    seconds = watch.seconds | {"train": outcome.train_s, "eval": watch.seconds["eval"] + outcome.eval_s}
    return Timing(
        wall_s=round(watch.wall_s, 3),
        cpu_s=round(watch.cpu_s, 3),
        step_s_median=outcome.step_s_median,
        step_s_p90=outcome.step_s_p90,
        warmup_steps_excluded=outcome.warmup_steps,
        **rounded(seconds),
    )


def throughput_section(watch: Stopwatch, outcome: "TrainingOutcome", rows_scored: int) -> Throughput:
    """Return rates over training and final evaluation."""
    return Throughput(
        train_tokens_per_s=outcome.tokens / outcome.train_s,
        train_samples_per_s=outcome.samples / outcome.train_s,
        eval_samples_per_s=rows_scored / watch.seconds["eval"],
        padded_fraction=outcome.padded_fraction,
    )


def reasons(record: RunRecord, memory: Memory, best_epoch: float | None) -> dict[str, str]:
    """Return why fields are null, and which epoch was chosen where one was."""
    why: dict[str, str] = {}
    if record.model is None or record.model.weights_sha256 is None:
        why["model.weights_sha256"] = "model.revision fixes the weights: it is a hash of the model's files"
    if memory.train_peak_allocated_bytes is None:
        why["memory.train_peak_allocated_bytes"] = "no GPU"
    return why | ({"protocol.selection": f"epoch {best_epoch} was the best"} if best_epoch is not None else {})


OUT_OF_MEMORY = re.compile(  # as libraries say it in errors of other types
    r"allocate memory|out of memory|bad_alloc|failed to map segment|_ALLOC_FAILED"
    r"|could not (create|execute) a (primitive(?! descriptor)|memory)"  # oneDNN's
)
NO_THREAD = "can't start new thread"  # there is no memory for its stack, or there are too many


def out_of_memory(error: BaseException) -> bool:
    """Return whether less at a time might help: an allocation failed, in whatever words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    limited = any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in MEMORY_LIMITS)
    return bool(OUT_OF_MEMORY.search(str(error))) or (limited and NO_THREAD in str(error))


def failure_kind(error: Exception, phase: str) -> FailureKind:
    """Return the class of a failure: what a user would do about it."""
    if out_of_memory(error):
        return "oom"
    if NO_THREAD in str(error):
        return "infra"
    if isinstance(error, ArithmeticError):
        return "nan"
    if os_error_behind(error) is not None or NO_SPACE.search(str(error)):
        return "infra"
    kinds: dict[str, FailureKind] = {"data": "data", "setup": "config"}
    return kinds.get(phase, "bug") if isinstance(error, ValueError) else "bug"
