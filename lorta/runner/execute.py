"""One run from its spec to its record: seed, load, attach, train, predict, score. Every failure is a record too."""

import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.api.holdout import load_splits
from lorta.api.task import DataPlan
from lorta.config.settings import TrainerSettings
from lorta.diagnostics.runner import Checks
from lorta.models.backbone import Backbone
from lorta.models.locate import ModelFiles, find_model, most_tokens
from lorta.planning.spec import RunSpec
from lorta.records.file_modes import share
from lorta.records.record import RunRecord
from lorta.records.sections import Failure, Score, Status, Tracking
from lorta.records.store import PROGRESS_NAME, Store, write_atomically
from lorta.runner import record_builder as describe
from lorta.runner.os_errors import infra_message, require_store
from lorta.system import provenance
from lorta.system.environment import environment_problems
from lorta.system.preemption import Preempted
from lorta.system.quiet import be_quiet
from lorta.system.slurm_jobs import cancelled
from lorta.training.context import DataSplits, TrainingContext
from lorta.training.metering import (
    Stopwatch,
    count_parameters,
    measure_memory,
    measure_storage,
    release_memory,
    reset_memory,
)
from lorta.training.recovery import (
    CHECKPOINT,
    CheckpointUnusable,
    batch_section,
    checkpoint_card,
    halved,
    held_bytes,
    limited_memory,
    remove,
    settings_of_checkpoint,
    whole_checkpoint,
)

if TYPE_CHECKING:
    from lorta.training.checkpoint import Checkpoints

PREDICTIONS, HISTORY, TRACEBACK, ADAPTER = "predictions.jsonl", "history.jsonl", "traceback.txt", "adapter"


def execute(spec: RunSpec, still_ours: Callable[[], bool] = lambda: True) -> RunRecord:
    """Run a spec and return its record, which is on disk as `running` before the work and final after it.

    When a micro-batch does not fit into memory, the run begins again with half of it, the batch of an optimizer step as
    before. The final record is not written when the run is no longer `still_ours`. Raises StoreUnwritable.
    """
    store = Store(spec.settings.runtime.runs)
    previous = store.last(spec.run_id)
    record = replace(describe.first_record(spec), attempt=1 + (previous.attempt if previous else 0))
    folder, asked = store.folder(spec.run_id) / CHECKPOINT, spec.settings.trainer
    beside = _memory_at_start(spec.settings.runtime.memory_limit_mib)
    trainer: TrainerSettings | None = settings_of_checkpoint(asked, whole_checkpoint(folder))
    while trainer is not None:
        record = replace(record, batch=batch_section(asked, trainer))
        store.write(record)
        record, trainer = _try(spec, store, record, trainer, beside)
    if still_ours():
        (store.folder(spec.run_id) / PROGRESS_NAME).unlink(missing_ok=True)
        store.write(record)
        if record.status == "success":
            remove(folder)
    return _mirror(record, spec, store)


def _memory_at_start(limit: int | None) -> int | None:
    """Return the bytes that a limited process holds with all libraries in memory, None without a limit."""
    if limit is None:
        return None
    for module in ("torch", "transformers", "peft", "datasets", "lorta.training.trainer"):
        import_module(module)
    return held_bytes()


def _try(
    spec: RunSpec, store: Store, record: RunRecord, trainer: TrainerSettings, beside: int | None
) -> tuple[RunRecord, TrainerSettings | None]:
    """Run with these settings; return the final record, or the one to begin again with and smaller settings.

    `beside` are the bytes that a memory limit leaves out of account.
    """
    run = _Run(spec, store, record, trainer)
    again = trainer != spec.settings.trainer
    try:
        with limited_memory(spec.settings.runtime.memory_limit_mib, beside):
            return run.result(), None
    except KeyboardInterrupt:
        store.write(replace(record, status="cancelled", ended_at=describe.now()))
        raise
    except Preempted as left:
        return _preempted(run, left), None
    except CheckpointUnusable as error:
        record = replace(record, reasons={**record.reasons, "resumed_from_step": str(error)})
        smaller = trainer  # the same again, from the beginning
        traceback.clear_frames(error.__traceback__)
    except Exception as error:
        full = describe.out_of_memory(error)
        if not full:
            require_store(error, store)
        # what went well before goes wrong in a second start when memory has not all come back: less may still fit
        smaller = halved(trainer) if full and (again or run.watch.current == "train") else None
        if smaller is None:
            return _failed(run, error), None
        why = f"{smaller.per_device_train_batch_size} rows at a time, because more did not fit into memory"
        record = replace(record, reasons={**record.reasons, "batch.micro": why})
        traceback.clear_frames(error.__traceback__)  # they hold the model and its activations
    del run
    remove(store.folder(spec.run_id) / CHECKPOINT)
    release_memory()
    return record, smaller


def _preempted(run: "_Run", left: Preempted) -> RunRecord:
    status: Status = "preempted"
    message, job = str(left), run.record.slurm_job
    if left.signal == signal.SIGTERM and job is not None and cancelled(job):
        status, message = "cancelled", f"Slurm job {job} was cancelled (scancel): {left}"
    failure = Failure(kind="preempted", type="Preempted", message=message, phase=run.watch.current, step=left.step)
    return replace(run.record, status=status, ended_at=describe.now(), failure=failure)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _failed(run: "_Run", error: Exception) -> RunRecord:
    write_atomically(run.folder / TRACEBACK, traceback.format_exc())
    kind = describe.failure_kind(error, run.watch.current)
    said = str(error) or type(error).__name__
    failure = Failure(
        kind=kind,
        type=type(error).__name__,
        message=infra_message(error, run.settings.runtime) if kind == "infra" else said,
        phase=run.watch.current,
        step=getattr(error, "step", None),
        traceback_file=TRACEBACK,
    )
    return replace(run.record, status="failed", ended_at=describe.now(), failure=failure)


def _mirror(record: RunRecord, spec: RunSpec, store: Store) -> RunRecord:
    """Send the record to the tracking service, if one is chosen; its failure costs a line, never the run.

    A run that was asked to leave has no time for that; the attempt that ends it sends everything under the same id.
    """
    tracking = spec.settings.tracking
    if tracking.mode == "none" or record.status in ("preempted", "cancelled"):
        return record
    from lorta.runner.tracking import mirror

    try:
        url = mirror(record, store, tracking.mode, tracking.project)
    except Exception as error:
        record = replace(record, reasons={**record.reasons, "tracking": f"{type(error).__name__}: {error}"})
    else:
        record = replace(record, tracking=Tracking(mode=tracking.mode, wandb_id=record.run_id, wandb_url=url))
    store.write(record)
    return record


class _Run:
    """The steps of one run; `record` is filled in as they are done, so that a failure keeps what was known."""

    def __init__(self, spec: RunSpec, store: Store, record: RunRecord, trainer: TrainerSettings) -> None:
        self.spec, self.store, self.record = spec, store, record
        self.settings, self.watch = spec.settings.model_copy(update={"trainer": trainer}), Stopwatch()
        self.folder = store.folder(spec.run_id)
        self.adapter, self.task = spec.adapter, spec.task
        self.checks = Checks(self.settings, self.task.peft_task_type, self.watch)

    def result(self) -> RunRecord:
        """Do all steps. Raises what they raise."""
        with self.watch.phase("setup"):
            files = self._prepare()
            self.task.try_scoring()
            backbone = self.task.load_backbone(files, self.settings.model.dtype)
        with self.watch.phase("data"):
            data = self._load_data(backbone, files)
        backbone = replace(backbone, rows=data.train, cache=Path(self.settings.runtime.cache))
        context = TrainingContext(backbone, data, self.settings.trainer, self.settings.seed, self.folder)
        with self.watch.phase("eval"):
            context = replace(context, base_predictions=self._predict_base(context))
        self.checks.before(backbone, _device())
        with self.watch.phase("setup"):
            model = self._attach(backbone, files)
        self._train(model, context)
        return self.record

    def _prepare(self) -> ModelFiles:
        import torch
        from transformers import set_seed

        be_quiet()
        if problems := environment_problems(torch.cuda.is_available()):  # a job's may not be that of its plan
            raise ValueError("\n".join(problems))
        if not torch.cuda.is_available():
            torch.set_num_threads(self.settings.trainer.cpu_threads)
        set_seed(self.settings.seed)
        return find_model(self.settings.model)

    def _load_data(self, backbone: Backbone, files: ModelFiles) -> DataSplits:
        plan = self.task.plan_data(self.settings.data, self.settings.model.data)
        self._check_fingerprints(plan, files)
        settings, most = self.settings.data, most_tokens(files.config)
        if most is not None and settings.max_length > most:
            settings = settings.model_copy(update={"max_length": most})
            why = f"rows are cut to {most} tokens: the model has positions for no more"
            self.record = replace(self.record, reasons={**self.record.reasons, "data.max_length": why})
        data = load_splits(self.task, plan, settings, backbone.tokenizer, Path(self.settings.runtime.cache))
        self.record = describe.with_rows(self.record, data)
        return data

    def _predict_base(self, context: TrainingContext) -> Any:
        """Return what the task predicts with the backbone as it is, if it wants that beside the adapted model's."""
        if not self.task.predicts_with_base:
            return None
        files = context.backbone.files
        if files is None or files.quantization is None:  # those are on their device already
            context.backbone.model.to(device=_device())  # pyright: ignore[reportCallIssue]
        return self.task.predict_base(context)

    def _check_fingerprints(self, plan: DataPlan, files: ModelFiles) -> None:
        now = {**plan.fingerprints, "model": files.fingerprint}
        changed = [name for name, value in self.spec.fingerprints.items() if now.get(name) != value]
        if changed:
            raise ValueError(f"{', '.join(changed)} changed on disk after the sweep was planned: start the sweep again")

    def _attach(self, backbone: Backbone, files: ModelFiles) -> Any:
        section = describe.model_section(self.spec, backbone, files)
        if self.settings.model.gradient_checkpointing:  # reentrant, it asks for inputs that need a gradient
            backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        model = self.adapter.attach(backbone, self.task.peft_task_type)
        params = count_parameters(model, backbone.geometry.architecture)
        self.record = replace(self.record, model=section, params=params)
        describe.require_planned_size(self.adapter, backbone.geometry, params)
        return model.to(_device())

    def _train(self, model: Any, context: TrainingContext) -> None:
        baseline, callbacks = reset_memory(), self.adapter.callbacks()
        factors: Mapping[str, float] = getattr(self.adapter, "rate_factors", {})
        context = replace(context, callbacks=callbacks, checkpoints=self._checkpoints(callbacks), rate_factors=factors)
        with self.watch.phase("train"):
            outcome = self.task.train(model, context)
        memory = replace(measure_memory(baseline), train_peak_tensor_bytes=outcome.peak_tensor_bytes)
        params = describe.with_changed(self.record, self.adapter, model)
        with self.watch.phase("eval"):
            predictions = self.task.predict(model, context)
            scores = self._score(predictions)
        with self.watch.phase("save"):
            self.adapter.save(model, self.folder / ADAPTER)
            share(self.folder / ADAPTER)
            self._write_files(predictions, outcome.history)
        self.record = self.checks.after(
            self.record, model, context.backbone, context.data
        )  # the model is another one from here on
        self.record = replace(
            self.record,
            status="success",
            ended_at=describe.now(),
            params=params,
            storage=measure_storage(self.folder / ADAPTER),
            memory=memory,
            time=describe.timing_section(self.watch, outcome),
            throughput=describe.throughput_section(self.watch, outcome, len(predictions)),
            metrics={"evaluation": scores},
            train_loss_final=outcome.loss_final,
            grad_norm_max=outcome.grad_norm_max,
            nan_steps=0,
            hardware=provenance.hardware(),
            env_fingerprint=provenance.env_fingerprint(),
            reasons={**self.record.reasons, **describe.reasons(memory, outcome.best_epoch)},
        )

    def _score(self, predictions: list[dict[str, Any]]) -> dict[str, Score]:
        scores = self.task.score(predictions)
        if self.task.primary not in scores:
            raise ValueError(f"task={self.task.name} has no score {self.task.primary}, its primary metric")
        return scores

    def _checkpoints(self, callbacks: Sequence[Any]) -> "Checkpoints | None":
        """Return what saves and resumes training, None where one of the method's callbacks could not be restored."""
        from lorta.training.checkpoint import Checkpoints, stateless

        if unknown := stateless(callbacks):
            because = f"no checkpoints were made: {', '.join(unknown)} cannot be restored"
            self.record = replace(self.record, reasons={**self.record.reasons, "resumed_from_step": because})
            return None
        runtime, card = self.settings.runtime, checkpoint_card(self.settings.trainer)
        checkpoints = Checkpoints(self.folder / CHECKPOINT, card, runtime.checkpoint_steps, runtime.checkpoint_s)
        reasons = self.record.reasons | ({"resumed_from_step": checkpoints.refused} if checkpoints.refused else {})
        self.record = replace(self.record, resumed_from_step=checkpoints.step, reasons=reasons)
        self.store.write(self.record)
        return checkpoints

    def _write_files(self, predictions: list[dict[str, Any]], history: list[dict[str, Any]]) -> None:
        self.record = replace(
            self.record,
            predictions_file=self.store.write_rows(self.record.run_id, PREDICTIONS, predictions),
            history_file=self.store.write_rows(self.record.run_id, HISTORY, history),
        )
