"""A run before it runs: settings, what they resolved to, and the identity made of those that can move a number."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lorta.api.adapter import Adapter
from lorta.api.task import DataPlan, Task
from lorta.config import identity
from lorta.config.settings import RunSettings
from lorta.geometry import Geometry, ModelContext
from lorta.models.locate import ModelFiles
from lorta.records.canonical import sha256
from lorta.records.sections import Budget, Question, Tuning

OF_IDENTITY = ("config", "cell_identity", "cell_id", "config_hash")  # of a run, worked out once


def separate_seeds(settings: RunSettings) -> dict[str, int]:
    """Return the seeds of initialisation, order and dropout that are not the run's seed, by their names."""
    seeds = {name: getattr(settings, name) for name in identity.SEPARATE_SEEDS}
    return {name: seed for name, seed in seeds.items() if seed is not None and seed != settings.seed}


def config_of(settings: RunSettings, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Return the groups of settings that an identity is made of, as a record keeps them."""
    return {
        "adapter": {key: value for key, value in settings.adapter.items() if key not in identity.UNSIGNED},
        "model": settings.model.model_dump(exclude={"path", "data"}),
        "task": settings.task,
        "trainer": settings.trainer.model_dump(),
        "data": settings.data.model_dump(exclude={"root", "source"}),
        "fingerprints": dict(fingerprints),
        "seed": settings.seed,
        **separate_seeds(settings),
    }


@dataclass(frozen=True)
class RunSpec:
    """A run before it runs: settings, and what they resolved to once, while the sweep was planned. Free of torch.

    Attributes:
        settings: the resolved settings; `adapter` and `task` are the objects that two of its groups name.
        data: where the rows come from, with their fingerprints.
        model: where the model's files are, with their fingerprint.
        geometry: the shapes of the part of the model that is adapted.
        overrides: as typed on the command line.
        choices: configuration group -> chosen file.
        tuned: how the learning rate was chosen, if it was searched.
        budgets: what this size was requested as, one for each `budget` that led to it.
        questions: what the study asks that the run is part of.
        continues: the run whose checkpoint this one goes on from, if it is there; what comes out is the same without.
        earlier_id: name of the same run, finished when identities were made otherwise.
    """

    settings: RunSettings
    adapter: Adapter
    task: Task
    data: DataPlan
    model: ModelFiles
    geometry: Geometry
    overrides: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict[str, str])
    tuned: Tuning | None = None
    budgets: tuple[Budget, ...] = ()
    questions: tuple[Question, ...] = ()
    continues: str | None = None
    earlier_id: str | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Map "train", "evaluation" and "model" to a content hash or a pinned revision."""
        return {**self.data.fingerprints, "model": self.model.fingerprint}

    @property
    def context(self) -> ModelContext:
        """What the adapter is told of the model that it shall attach to."""
        model = self.settings.model
        task_type = self.task.peft_task_type
        return ModelContext(
            self.geometry, task_type, model.quantization, model.gradient_checkpointing, dtype=model.dtype
        )

    @property
    def parameters(self) -> int | None:
        """The closed-form count of the adapter's weights, head excluded, None where there is no form."""
        return self.adapter.parameters(self.geometry)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The groups of settings that identity is made of, seed included: what a record keeps."""
        return config_of(self.settings, self.fingerprints)

    @property
    def rate_was_searched(self) -> bool:
        """Whether trials chose the rate: this command's, or those of an experiment's table, at its own sizes."""
        return self.tuned is not None or (self.settings.tuning is not None and not self.budgets)

    @cached_property
    def cell_identity(self) -> dict[str, Any]:
        """The names and values of identity but for the seeds."""
        return identity.identity({key: value for key, value in self.config.items() if key not in identity.SEEDS})

    @cached_property
    def cell_id(self) -> str:
        """12 hexadecimal digits: the same for all seeds of a cell."""
        return sha256(self.cell_identity)[:12]

    @cached_property
    def config_hash(self) -> str:
        """All 64 digits of the SHA-256 that `signature` abbreviates."""
        seeds = {key: value for key, value in self.config.items() if key in identity.SEEDS}
        return sha256({**self.cell_identity, **seeds})

    def labelled(self, **changes: Any) -> "RunSpec":
        """Return the same run with other fields that are no part of its identity, which is not made again."""
        other = replace(self, **changes)
        vars(other).update({name: vars(self)[name] for name in OF_IDENTITY if name in vars(self)})
        return other

    def with_seeds(self, seeds: Mapping[str, int], overrides: tuple[str, ...]) -> "RunSpec":
        """Return the run of the same cell with other seeds, by the names of settings; valid ones."""
        settings = self.settings.model_copy(update=dict(seeds))
        other = replace(self, settings=settings, overrides=overrides, earlier_id=None)
        of_cell = {key: value for key, value in self.config.items() if key not in identity.SEEDS}
        own = {"config": of_cell | {"seed": settings.seed} | separate_seeds(settings)}
        vars(other).update(own, cell_identity=self.cell_identity, cell_id=self.cell_id)
        return other

    @property
    def signature(self) -> str:
        """12 hexadecimal digits: the run's identity."""
        return self.config_hash[:12]

    @property
    def run_id(self) -> str:
        """The run's name, its folder and its tracking id: its signature, or the one it was finished under."""
        return self.earlier_id or self.signature

    @property
    def folder(self) -> Path:
        """Where the run's record, predictions and adapter go."""
        return Path(self.settings.runtime.runs) / self.run_id
