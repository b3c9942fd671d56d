"""What is measured of a run's model besides its task's score, so that no number of the run can change by it.

What comes before training draws from no generator and gives the model back where it was; the rest comes after the
adapter was saved. If a diagnostic fails, its columns are empty and say why; the run still succeeds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from lorta.api.task import DataSplits
from lorta.config.settings import RunSettings
from lorta.diagnostics.errors import NotMeasured
from lorta.models.backbone import Backbone
from lorta.records.record import RunRecord
from lorta.training.metering import Stopwatch

NAMES = ("forgetting", "merging")  # sections of a record
SWITCHED_OFF = "runtime.checks=false"
OF_A_TRIAL = "not measured on rows held out of the training data"


class Diagnostic(Protocol):
    """One thing that is measured before and after training."""

    name: str  # of the record's section

    def before(self, backbone: Backbone, device: str) -> None:
        """Look at the backbone before an adapter is attached. Raises NotMeasured where that means nothing."""
        ...

    def after(self, record: RunRecord, model: Any, backbone: Backbone, data: DataSplits) -> RunRecord:
        """Return the record with the section. `model` may be another one afterwards. Raises NotMeasured."""
        ...


def diagnostics_of(settings: RunSettings, task_type: str) -> list[Diagnostic]:
    """Return the diagnostics of a run, in the order in which they must look at its model; merging changes it.

    A trial of a learning rate has none: no table shows them, and they take a quarter of its time.
    """
    if not settings.runtime.checks or settings.data.scores_training_rows:
        return []
    from lorta.diagnostics.forgetting import ForgettingDiagnostic
    from lorta.diagnostics.merging import MergingDiagnostic

    return [ForgettingDiagnostic(settings, task_type), MergingDiagnostic()]


class DiagnosticRunner:
    """Runs the diagnostics of one run, and keeps the reason of each one that could not be measured."""

    def __init__(self, settings: RunSettings, task_type: str, watch: Stopwatch) -> None:
        """Take the diagnostics of a run; with none, its record says why."""
        self.diagnostics, self.watch = diagnostics_of(settings, task_type), watch
        why = OF_A_TRIAL if settings.runtime.checks else SWITCHED_OFF
        self.reasons: dict[str, str] = {} if self.diagnostics else dict.fromkeys(NAMES, why)

    def before(self, backbone: Backbone, device: str) -> None:
        """Look at the backbone before an adapter is attached."""
        for diagnostic in self.diagnostics:
            with self._reason(diagnostic.name):
                diagnostic.before(backbone, device)

    def after(self, record: RunRecord, model: Any, backbone: Backbone, data: DataSplits) -> RunRecord:
        """Return the record with what the trained model gave, or why not. The model is merged afterwards."""
        for diagnostic in self.diagnostics:
            if diagnostic.name not in self.reasons:
                with self._reason(diagnostic.name):
                    record = diagnostic.after(record, model, backbone, data)
        return replace(record, reasons={**record.reasons, **self.reasons})

    @contextmanager
    def _reason(self, name: str) -> Iterator[None]:
        try:
            with self.watch.phase("check"):
                yield
        except (NotMeasured, NotImplementedError) as error:
            self.reasons[name] = str(error)
        except Exception as error:  # out of memory, a model that refuses the batch
            self.reasons[name] = f"{type(error).__name__}: {error}"
