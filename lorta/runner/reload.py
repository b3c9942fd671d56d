"""A finished run's model again: the backbone, and the adapter that the run saved, as its record describes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorta.api.adapter import Adapter
from lorta.api.task import Task
from lorta.config.choices import group_options
from lorta.config.compose import compose_cells
from lorta.config.identity import identity
from lorta.config.instantiate import build, trusting
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import OWN
from lorta.config.settings import RunSettings, setting_problems
from lorta.models.backbone import Backbone
from lorta.models.locate import ModelFiles, find_model
from lorta.planning.spec import config_of
from lorta.records.record import RunRecord
from lorta.records.store import RECORD_NAME, Store
from lorta.training.context import DataSplits, TrainingContext


@dataclass
class Reloaded:
    """A run's model in evaluation mode, and what it was made of. Without an adapter, `model` is the backbone's."""

    record: RunRecord
    settings: RunSettings
    adapter: Adapter
    task: Task
    files: ModelFiles
    backbone: Backbone
    model: Any

    def context(self, data: DataSplits, folder: Path, base_predictions: Any = None) -> TrainingContext:
        """Return what the task predicts with."""
        trainer, seed = self.settings.trainer, self.settings.seed
        return TrainingContext(self.backbone, data, trainer, seed, folder, base_predictions=base_predictions)


def reload_run(
    folder: Path, conf: Path, overrides: Sequence[str] = (), base_only: bool = False, code: Sequence[Path] = ()
) -> Reloaded:
    """Return the model of a run folder; `base_only` leaves the adapter out. `conf`: `lorta.config.places.CONF`.

    `overrides` say where files are on this machine (model.path=FOLDER, data.root=FOLDER): records do not. The folder
    may come from elsewhere: of code that its record names, only that of the project, of PEFT, of packages that conf
    names and of the folders `code` is imported.

    A run that was made with --conf needs the same folder here: LORTA_CONF, or `lorta.config.places.add_own_folder`.

    Raises ValueError for a folder without a successful run, for a configuration or backbone that has changed, and for
    code of other packages.
    """
    with trusting(code):
        return _reload(folder, conf, overrides, base_only)


def _reload(folder: Path, conf: Path, overrides: Sequence[str], base_only: bool) -> Reloaded:
    record = _finished(folder)
    settings = _settings(record, Path(conf).resolve(), overrides)
    adapter: Adapter = build(settings.adapter)
    task: Task = build(settings.task).with_labels((record.task and record.task.labels) or ())
    files = find_model(settings.model)
    _same(folder, "model", files.fingerprint, record.config["fingerprints"]["model"])
    import torch  # not before what can be refused
    from transformers import set_seed

    set_seed(settings.seed_of("init"))  # frozen random weights of a method are drawn again
    backbone = task.load_backbone(files, settings.model.dtype)
    model: Any = backbone.model
    if not base_only:
        model = adapter.load(backbone, task.peft_task_type, folder / "adapter")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Reloaded(record, settings, adapter, task, files, backbone, model.to(device).eval())


def _finished(folder: Path) -> RunRecord:
    there = (folder / RECORD_NAME).is_file()
    record = Store(str(folder.parent)).read(folder.name) if there else None
    if record is None or record.status != "success":
        state = "no record" if record is None else f"status {record.status}"
        raise ValueError(f"{folder}: not the folder of a successful run ({state})")
    return record


def _settings(record: RunRecord, conf: Path, words: Sequence[str]) -> RunSettings:
    problems = Problems()
    _require_choices(record, conf)
    given = {word.partition("=")[0] for word in words}
    kept = [word for word in record.overrides if word.partition("=")[0] not in given]
    cells = compose_cells(parse_overrides([*kept, *words], False, conf, problems), conf, problems)
    if problems:
        raise ValueError("\n".join(problems))
    try:
        settings = RunSettings.model_validate(cells[0].config | {"seed": record.seed})
    except ValidationError as error:
        raise ValueError("\n".join(setting_problems(error))) from error
    now, then = identity(config_of(settings, record.config["fingerprints"])), identity(record.config)
    for part in ("adapter", "task"):
        _same(Path(record.run_id), part, now[part], then[part])
    return settings


def _require_choices(record: RunRecord, conf: Path) -> None:
    """Raise ValueError where the run's adapter or task is of a user's own folder, which records do not name."""
    options = group_options(conf)
    for group in ("adapter", "task"):
        name = record.choices.get(group)
        if name is not None and name not in options[group]:
            raise ValueError(
                f"{record.run_id}: {group}={name} is no file of {conf}: if the run was made with --conf FOLDER, set "
                f"the variable {OWN}=FOLDER before Python starts, or call add_own_folder(FOLDER) of lorta.config.places"
            )


def _same(folder: Path, what: str, now: Any, then: Any) -> None:
    if now != then:
        raise ValueError(
            f"{folder}: the {what} is no longer what the run had: check out the run's commit, or run it again"
        )
