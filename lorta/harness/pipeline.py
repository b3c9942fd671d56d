"""One run from its spec to its record: seed, load, attach, train, predict, score. Every failure is a record too."""

import hashlib
import os
import traceback
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorta.harness import provenance
from lorta.harness.adapter import Adapter
from lorta.harness.backbone import Backbone, ModelFiles, find_model
from lorta.harness.build import build
from lorta.harness.cost import Stopwatch, count_parameters, measure_memory, measure_storage, reset_memory, rounded
from lorta.harness.record import RunRecord
from lorta.harness.sections import (
    AdapterSection,
    Batch,
    Failure,
    FailureKind,
    ModelSection,
    ProtocolSection,
    Split,
    TaskSection,
    Throughput,
    Timing,
    Tracking,
)
from lorta.harness.spec import RunSpec
from lorta.harness.store import Store, write_atomically
from lorta.harness.task import DataPlan, DataSplits, Task

PREDICTIONS, HISTORY, TRACEBACK, ADAPTER = "predictions.jsonl", "history.jsonl", "traceback.txt", "adapter"
MACHINE_KEYS = ("runtime.", "data.root", "model.path")  # where files lie on one machine: no part of a record


def now() -> str:
    """Return the time in ISO-8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_record(spec: RunSpec) -> RunRecord:
    """Return the record of a run about to start: identity, settings, and what is known without loading anything."""
    settings = spec.settings
    adapter: Adapter = build(settings.adapter)
    task: Task = build(settings.task)
    return RunRecord(
        run_id=spec.signature,
        cell_id=spec.cell_id,
        config_hash=spec.config_hash,
        status="running",
        created_at=now(),
        started_at=now(),
        seed=settings.seed,
        config=spec.cell | {"seed": settings.seed},
        overrides=tuple(item for item in spec.overrides if not item.startswith(MACHINE_KEYS)),
        choices=dict(spec.choices),
        adapter=AdapterSection(
            name=adapter.name,
            rank=adapter.rank,
            projections=tuple(settings.adapter.get("projections", ())) or None,
            learning_rate=settings.trainer.learning_rate,
            head_learning_rate=settings.trainer.head_learning_rate,
            settings=spec.cell["adapter"],
        ),
        task=_task_section(spec, task),
        protocol=ProtocolSection(
            selection=settings.trainer.selection,
            tuned=settings.tuning is not None,
            epochs=settings.trainer.num_train_epochs,
            max_steps=settings.trainer.max_steps if settings.trainer.max_steps > 0 else None,
        ),
        batch=Batch(
            effective=settings.trainer.per_device_train_batch_size * settings.trainer.gradient_accumulation_steps,
            micro=settings.trainer.per_device_train_batch_size,
            grad_accum=settings.trainer.gradient_accumulation_steps,
        ),
        code=provenance.code(),
        environment=provenance.environment(),
    )


def _task_section(spec: RunSpec, task: Task) -> TaskSection:
    data = spec.settings.data
    plan = task.plan_data(data, spec.settings.model.data)
    return TaskSection(
        name=task.name,
        protocol=task.protocol,
        source=plan.source,
        revision=plan.revision,
        splits={use: Split(rows=0, fingerprint=value) for use, value in plan.fingerprints.items()},
        split_primary="evaluation",
        metric_primary=task.primary,
        higher_is_better=task.higher_is_better,
        test_is_validation=task.test_is_validation,
        max_train_samples=data.max_train_samples,
        max_eval_samples=data.max_eval_samples,
    )


def execute(spec: RunSpec) -> RunRecord:
    """Run a spec and return its record, which is on disk as `running` before the work and final after it."""
    store = Store(spec.settings.runtime.runs)
    record = first_record(spec)
    store.write(record)
    watch = Stopwatch()
    try:
        record = _Run(spec, store, record, watch).result()
    except KeyboardInterrupt:
        store.write(replace(record, status="cancelled", ended_at=now()))
        raise
    except Exception as error:
        record = _failed(record, store, error, watch.current)
    store.write(record)
    return _mirror(record, spec, store)


def _failed(record: RunRecord, store: Store, error: Exception, phase: str) -> RunRecord:
    write_atomically(store.folder(record.run_id) / TRACEBACK, traceback.format_exc())
    failure = Failure(
        kind=failure_kind(error, phase),
        type=type(error).__name__,
        message=str(error) or type(error).__name__,
        phase=phase,
        step=getattr(error, "step", None),
        traceback_file=TRACEBACK,
    )
    return replace(record, status="failed", ended_at=now(), failure=failure)


def failure_kind(error: Exception, phase: str) -> FailureKind:
    """Return the class of a failure: what a user would do about it."""
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return "oom"
    if isinstance(error, ArithmeticError):
        return "nan"
    if isinstance(error, OSError):
        return "infra"
    if isinstance(error, ValueError):
        return {"data": "data", "setup": "config"}.get(phase, "bug")  # pyright: ignore[reportReturnType]
    return "bug"


def _mirror(record: RunRecord, spec: RunSpec, store: Store) -> RunRecord:
    """Send the record to the tracking service, if one is chosen; its failure costs a line, never the run."""
    tracking = spec.settings.tracking
    if tracking.mode == "none":
        return record
    from lorta.harness.tracking import mirror

    try:
        url = mirror(record, store, tracking.mode, tracking.project)
    except Exception as error:
        reasons = {**record.reasons, "tracking": f"{type(error).__name__}: {error}"}
        record = replace(record, reasons=reasons)
    else:
        record = replace(record, tracking=Tracking(mode=tracking.mode, wandb_id=record.run_id, wandb_url=url))
    store.write(record)
    return record


class _Run:
    """The steps of one run, and what they hand to each other."""

    def __init__(self, spec: RunSpec, store: Store, record: RunRecord, watch: Stopwatch) -> None:
        self.spec, self.store, self.record, self.watch = spec, store, record, watch
        self.settings = spec.settings
        self.adapter: Adapter = build(spec.settings.adapter)
        self.task: Task = build(spec.settings.task)
        self.folder = store.folder(spec.signature)

    def result(self) -> RunRecord:
        """Do all steps. Raises what they raise."""
        with self.watch.phase("setup"):
            files = self._prepare()
            backbone = self.task.load_backbone(files, self.settings.model.dtype)
        with self.watch.phase("data"):
            plan = self.task.plan_data(self.settings.data, self.settings.model.data)
            self._check_fingerprints(plan, files)
            data = self.task.load_data(plan, self.settings.data, backbone.tokenizer, Path(self.settings.runtime.cache))
        with self.watch.phase("setup"):
            backbone_parameters = sum(weight.numel() for weight in backbone.model.parameters())
            model = self.adapter.attach(backbone, self.task.peft_task_type).to(_device())
            params = count_parameters(model, backbone.geometry.architecture)
        section = _model_section(self.spec, backbone, files, backbone_parameters)
        return self._train_and_score(backbone, model, data, replace(self.record, params=params, model=section))

    def _prepare(self) -> ModelFiles:
        import datasets
        import torch
        from transformers import set_seed
        from transformers.utils import logging

        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        datasets.disable_progress_bars()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if not torch.cuda.is_available():
            torch.set_num_threads(self.settings.trainer.cpu_threads)
        set_seed(self.settings.seed)
        return find_model(self.settings.model)

    def _check_fingerprints(self, plan: DataPlan, files: ModelFiles) -> None:
        found = {**plan.fingerprints, "model": files.fingerprint}
        changed = [name for name, value in self.spec.fingerprints.items() if found.get(name) != value]
        if changed:
            raise ValueError(f"{', '.join(changed)} changed on disk after the sweep was planned: start the sweep again")

    def _train_and_score(self, backbone: Backbone, model: Any, data: DataSplits, record: RunRecord) -> RunRecord:
        baseline = reset_memory()
        trainer = self.settings.trainer
        with self.watch.phase("train"):
            outcome = self.task.train(
                model, backbone, data, trainer, self.settings.seed, self.adapter.callbacks(), self.folder
            )
        memory = measure_memory(baseline)
        with self.watch.phase("eval"):
            predictions = self.task.predict(model, backbone, data, trainer)
            scores = self.task.score(predictions)
        with self.watch.phase("save"):
            self.adapter.save(model, self.folder / ADAPTER)
            predictions_file = self.store.write_rows(record.run_id, PREDICTIONS, predictions)
            history_file = self.store.write_rows(record.run_id, HISTORY, outcome.history)
        seconds = self.watch.seconds | {"train": outcome.train_s, "eval": self.watch.seconds["eval"] + outcome.eval_s}
        timing = Timing(
            wall_s=round(self.watch.wall_s, 3),
            step_s_median=outcome.step_s_median,
            step_s_p90=outcome.step_s_p90,
            warmup_steps_excluded=3,
            **rounded(seconds),
        )
        return replace(
            record,
            status="success",
            ended_at=now(),
            task=self._with_rows(record.task, data),
            storage=measure_storage(self.folder / ADAPTER),
            memory=memory,
            time=timing,
            throughput=Throughput(
                train_tokens_per_s=outcome.tokens / outcome.train_s,
                train_samples_per_s=outcome.samples / outcome.train_s,
                eval_samples_per_s=len(predictions) / self.watch.seconds["eval"],
                padded_fraction=outcome.padded_fraction,
            ),
            metrics={"evaluation": scores},
            predictions_file=predictions_file,
            history_file=history_file,
            train_loss_final=outcome.loss_final,
            grad_norm_max=outcome.grad_norm_max,
            nan_steps=0,
            hardware=provenance.hardware(),
            env_fingerprint=provenance.env_fingerprint(),
            reasons=_reasons(memory, outcome.best_epoch),
        )

    def _with_rows(self, section: TaskSection | None, data: DataSplits) -> TaskSection:
        assert section is not None
        rows = {"train": len(data.train), "evaluation": len(data.evaluation)}
        splits = {use: replace(split, rows=rows[use]) for use, split in section.splits.items()}
        return replace(section, splits=splits)


def _reasons(memory: Any, best_epoch: float | None) -> dict[str, str]:
    reasons = {} if memory.train_peak_allocated_bytes is not None else {"memory.train_peak_allocated_bytes": "no GPU"}
    return reasons | ({"protocol.selection": f"epoch {best_epoch} was the best"} if best_epoch is not None else {})


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _model_section(spec: RunSpec, backbone: Backbone, files: ModelFiles, parameters: int) -> ModelSection:
    model = spec.settings.model
    tokenizer: Any = backbone.tokenizer
    return ModelSection(
        name=model.name if model.name != "custom" else (model.hub_id or os.path.basename(files.location)),
        id=model.hub_id or model.name,
        revision=model.revision or files.fingerprint,
        dtype=model.dtype,
        parameters_total=parameters,
        tokenizer_sha256=_sha256(tokenizer.backend_tokenizer.to_str()),
        padding_side=tokenizer.padding_side,
        pad_token_id=tokenizer.pad_token_id,
        weights_sha256=None,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
