"""A run before it runs: settings, what they resolved to, and the identity made of those that can move a number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorta.config import identity
from lorta.config.settings import RunSettings
from lorta.records.canonical import sha256
from lorta.records.row_counts import RowCount
from lorta.records.sections import Budget, Tuning


@dataclass(frozen=True)
class RunSpec:
    """A run before it runs: settings, the Hydra choices behind them, and fingerprints of its inputs.

    `fingerprints` maps "train", "evaluation" and "model" to a content hash or a pinned revision.
    """

    settings: RunSettings
    fingerprints: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict[str, str])
    tuned: Tuning | None = None  # how its rate was chosen, if it was searched
    budgets: tuple[Budget, ...] = ()  # what this size was asked as, one for each `budget` that led to it
    counts: Mapping[str, RowCount] = field(default_factory=dict[str, RowCount])  # split -> rows known while planning
    earlier_id: str | None = None  # of the same run, finished when identities were made otherwise

    @property
    def config(self) -> dict[str, Any]:
        """The groups of settings that identity is made of, seed included: what a record keeps."""
        settings = self.settings
        return {
            "adapter": {key: value for key, value in settings.adapter.items() if key not in identity.UNSIGNED},
            "model": settings.model.model_dump(exclude={"path", "data"}),
            "task": settings.task,
            "trainer": settings.trainer.model_dump(),
            "data": settings.data.model_dump(exclude={"root", "source"}),
            "fingerprints": dict(self.fingerprints),
            "seed": settings.seed,
        }

    @property
    def rate_was_searched(self) -> bool:
        """Whether trials chose the rate: this command's, or those of an experiment's table, at its own sizes."""
        return self.tuned is not None or (self.settings.tuning is not None and not self.budgets)

    @property
    def cell_id(self) -> str:
        """12 hexadecimal digits: the same for all seeds of a cell."""
        return identity.cell_id(self.config)

    @property
    def config_hash(self) -> str:
        """All 64 digits of the SHA-256 that `signature` abbreviates."""
        return sha256(identity.identity(self.config))

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
