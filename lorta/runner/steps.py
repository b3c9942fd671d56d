"""The steps of one run: load, attach, train, predict, score, save; each in a phase of its time."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.api.holdout import load_splits
from lorta.api.task import DataPlan
from lorta.config.settings import TrainerSettings
from lorta.diagnostics.runner import DiagnosticRunner
from lorta.models.backbone import Backbone
from lorta.models.locate import ModelFiles, find_model, most_tokens
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.sections import Batch, Score
from lorta.records.store import ADAPTER, CHECKPOINT, remove
from lorta.runner import record_builder as describe
from lorta.system.environment import environment_problems
from lorta.system.quiet import be_quiet
from lorta.system.run_log import RUN
from lorta.training.context import DataSplits, TrainingContext
from lorta.training.metering import (
    Stopwatch,
    count_parameters,
    measure_memory,
    release_memory,
    require_float32,
    reset_memory,
    trained_tensors,
)
from lorta.training.recovery import checkpoint_card

if TYPE_CHECKING:
    from lorta.training.checkpoint import Checkpoints

PREDICTIONS, HISTORY = "predictions", "history"


class RunSteps:
    """The steps of one run, in one try or several; `record` is filled in on the way, so a failure keeps what it had."""

    def __init__(self, spec: RunSpec, folder: Path, record: RunRecord, shares_gpu: bool = False) -> None:
        """Take the record to begin with."""
        self.shares_gpu = shares_gpu
        self.spec, self.folder, self.record, self.first_record = spec, folder, record, record
        self.adapter, self.task, self.settings = spec.adapter, spec.task, spec.settings
        self.watch, self.limit = Stopwatch(), nullcontext()
        self.data: DataSplits | None = None
        self.rows: dict[str, list[dict[str, Any]]] = {}  # side files of the record

    def begin(self, trainer: TrainerSettings, batch: Batch, limit: AbstractContextManager[None]) -> None:
        """Take the settings, the batch and the memory limit of the next try."""
        self.settings = self.spec.settings.model_copy(update={"trainer": trainer})
        self.watch, self.limit = Stopwatch(), limit
        self.record = replace(self.record, batch=batch)

    def do(self) -> None:
        """Do all steps. Raises what they raise."""
        with self.limit:
            self._steps()

    def begin_again(self, reasons: Mapping[str, str]) -> None:
        """Forget this try but for the reasons, its checkpoint included."""
        for name, why in reasons.items():
            RUN.info("begins again, %s: %s", name, why)
        self.record = replace(self.first_record, reasons={**self.first_record.reasons, **reasons})
        self.data, self.rows = None, {}
        remove(self.folder / CHECKPOINT)
        release_memory()

    def _steps(self) -> None:
        with self.watch.phase("setup"):
            files = self._prepare()
            self.task.try_scoring()
            backbone = self.task.load_backbone(files, self.settings.model.dtype)
        with self.watch.phase("data"):
            data = self.data = self._load_data(backbone, files)
            for use, count in data.counts.items():
                RUN.info("rows of %s: %s", use, count.in_full)
        backbone = replace(backbone, rows=data.train, cache=Path(self.settings.runtime.cache))
        dropout, order = self.settings.seed_of("dropout"), self.settings.seed_of("order")
        context = TrainingContext(backbone, data, self.settings.trainer, dropout, self.folder, order_seed=order)
        with self.watch.phase("eval"):
            context = replace(context, base_predictions=self._predict_base(context))
        diagnostics = DiagnosticRunner(self.settings, self.task.peft_task_type, self.watch)
        diagnostics.before(backbone, _device())
        with self.watch.phase("setup"):
            self._start_head(backbone, data)
            model = self._attach(backbone, files)
        self._train(model, context, diagnostics)

    def _prepare(self) -> ModelFiles:
        import torch
        from transformers import set_seed

        be_quiet()
        if problems := environment_problems(torch.cuda.is_available()):  # a job's may not be that of its plan
            raise ValueError("\n".join(problems))
        if (gpus := torch.cuda.device_count()) > 1:
            raise ValueError(
                f"this process sees {gpus} GPUs, and a run uses one: set CUDA_VISIBLE_DEVICES to one of them before "
                "torch starts CUDA, or give runtime.workers=1, whose worker sees one"
            )
        if not torch.cuda.is_available():
            torch.set_num_threads(self.settings.trainer.cpu_threads)
        set_seed(self.settings.seed_of("init"))
        return find_model(self.settings.model)

    def _load_data(self, backbone: Backbone, files: ModelFiles) -> DataSplits:
        plan = self.task.plan_data(self.settings.data, self.settings.model.data)
        self._check_fingerprints(plan, files)
        settings, most = self.settings.data, most_tokens(files.config)
        if most is not None and settings.max_length > most:
            settings = settings.model_copy(update={"max_length": most})
            why = f"rows are cut to {most} tokens: the model has positions for no more"
            self.record = replace(self.record, reasons={**self.record.reasons, "data.max_length": why})
        elif settings.max_length > (trained := files.config.get("max_position_embeddings") or math.inf):
            why = f"rows can be longer than the {trained} tokens that the model's positions were trained for"
            self.record = replace(self.record, reasons={**self.record.reasons, "data.max_length": why})
        return load_splits(self.task, plan, settings, backbone.tokenizer, Path(self.settings.runtime.cache))

    def _predict_base(self, context: TrainingContext) -> Any:
        """Return what the task predicts with the backbone as it is, if it wants that beside the adapted model's.

        A trial of a learning rate goes without, unless the task's own scores are differences from the backbone's.
        """
        wanted = self.task.compares_with_backbone or not self.settings.data.scores_training_rows
        if not (self.task.predicts_with_base and wanted):
            return None
        files = context.backbone.files
        if files is None or files.quantization is None:  # those are on their device already
            context.backbone.model.to(device=_device())  # pyright: ignore[reportCallIssue]
        return self.task.predict_base(context)

    def _casts(self, model: Any) -> AbstractContextManager[None]:
        from lorta.models.frozen_casts import frozen_casts

        return frozen_casts(model, self.settings.trainer.precision)

    def _check_fingerprints(self, plan: DataPlan, files: ModelFiles) -> None:
        now = {**plan.fingerprints, "model": files.fingerprint}
        changed = [name for name, value in self.spec.fingerprints.items() if now.get(name) != value]
        if changed:
            raise ValueError(f"{', '.join(changed)} changed on disk after the sweep was planned: start the sweep again")

    def _start_head(self, backbone: Backbone, data: DataSplits) -> None:
        if why_not := self.task.start_head(backbone, data):
            self.record = replace(self.record, reasons={**self.record.reasons, "task.head_start": why_not})

    def _attach(self, backbone: Backbone, files: ModelFiles) -> Any:
        section = describe.model_section(self.spec, backbone, files)
        if self.settings.model.gradient_checkpointing:  # reentrant, it asks for inputs that need a gradient
            backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        model = self.adapter.attach(backbone, self.task.peft_task_type)
        params = count_parameters(model, backbone.geometry.architecture)
        self.record = replace(self.record, model=section, params=params)
        describe.require_planned_size(self.adapter, backbone.geometry, params)
        require_float32(model, self.adapter.name)
        return model.to(_device())

    def _train(self, model: Any, context: TrainingContext, diagnostics: DiagnosticRunner) -> None:
        baseline, callbacks = reset_memory(), self.adapter.callbacks()
        factors: Mapping[str, float] = getattr(self.adapter, "rate_factors", {})
        context = replace(context, callbacks=callbacks, checkpoints=self._checkpoints(callbacks), rate_factors=factors)
        with self.watch.phase("setup"):
            before = trained_tensors(model)
        forward = vars(model).get("forward")
        with self.watch.phase("train"), self._casts(model):
            outcome = self.task.train(model, context)
        memory = replace(measure_memory(baseline), train_peak_tensor_bytes=outcome.peak_tensor_bytes)
        self.record = describe.with_moved(self.record, before, trained_tensors(model))
        changed = self.adapter.changed_weights(model)
        with self.watch.phase("eval"):
            with self._casts(model):
                predictions = self.task.predict(model, context)
            scores = self._score(predictions)
        with self.watch.phase("save"):
            self.adapter.save(model, self.folder / ADAPTER)
        self.rows = {PREDICTIONS: predictions, HISTORY: outcome.history}
        _set_forward(model, forward)
        record = diagnostics.after(self.record, model, context.backbone, context.data)  # it may change the model
        spread, saved = self.task.spread(predictions), self.folder / ADAPTER
        results = describe.Results(outcome, memory, changed, scores, spread, len(predictions), saved)
        self.record = describe.finished(record, context.data, self.watch, results)

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
        checkpoints = Checkpoints(
            self.folder / CHECKPOINT,
            card,
            runtime.checkpoint_steps,
            runtime.checkpoint_s,
            self.settings.trainer.stop_after,
        )
        reasons = self.record.reasons | ({"resumed_from_step": checkpoints.refused} if checkpoints.refused else {})
        self.record = replace(self.record, resumed_from_step=checkpoints.step, reasons=reasons)
        return checkpoints


def _set_forward(model: Any, forward: Any) -> None:
    """Give a model the `forward` that it had, None for its class's: Trainer leaves one with autocast in its place."""
    if forward is None:
        vars(model).pop("forward", None)
    else:
        model.forward = forward


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
