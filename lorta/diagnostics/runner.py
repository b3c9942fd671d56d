"""What is asked of a run's model besides its task, so that no number of the run can move: forgetting and merging.

What comes before training draws from no generator and gives the model back where it was; the rest comes after the
adapter was saved. A check that fails costs its own columns, which then say why, and never the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lorta.api.task import DataSplits
from lorta.config.settings import RunSettings
from lorta.diagnostics.errors import NotMeasured
from lorta.models.backbone import Backbone, padding_id
from lorta.records.record import RunRecord
from lorta.records.sections import Forgetting
from lorta.training.metering import Stopwatch

SWITCHED_OFF = "runtime.checks=false"


class Checks:
    """The checks of one run. Without `settings.runtime.checks`, nothing is done and the record says so."""

    def __init__(self, settings: RunSettings, task_type: str, watch: Stopwatch) -> None:
        self.settings, self.task_type, self.watch = settings, task_type, watch
        self.wanted = settings.runtime.checks
        self._text: Any = None  # BaseText; None: forgetting cannot be measured
        self._loss_before: float | None = None  # None: it is measured through a language head, with the loss after
        names = ("forgetting", "merging")
        self.reasons: dict[str, str] = {} if self.wanted else dict.fromkeys(names, SWITCHED_OFF)

    def before(self, backbone: Backbone, device: str) -> None:
        """Read the text, and measure a language model's loss on it, before an adapter is attached."""
        if not self.wanted:
            return
        from lorta.diagnostics.corpus import read_base_text
        from lorta.diagnostics.forgetting import objective_of, text_loss

        with self._reason("forgetting"):
            text = read_base_text(self.settings, backbone.tokenizer, objective_of(backbone, self.task_type))
            if self.task_type == "CAUSAL_LM":
                with _at(backbone.model, device), _untouched_generators():
                    self._loss_before = text_loss(backbone.model, text)
            self._text = text

    def after(self, record: RunRecord, model: Any, backbone: Backbone, data: DataSplits) -> RunRecord:
        """Return the record with what the trained model gave, or why not. The model is merged afterwards."""
        if self.wanted:
            from lorta.diagnostics.merging import check_merging, fixed_rows

            if self._text is not None:
                with self._reason("forgetting"):
                    record = replace(record, forgetting=self._forgetting(model, backbone))
            with self._reason("merging"):
                rows = fixed_rows(data.train)
                record = replace(record, merging=check_merging(model, rows, padding_id(backbone)))
        return replace(record, reasons={**record.reasons, **self.reasons})

    def _forgetting(self, model: Any, backbone: Backbone) -> Forgetting:
        from lorta.diagnostics.forgetting import losses_through_head, text_loss

        text = self._text
        if self._loss_before is None:
            before, after = losses_through_head(model, backbone, text)
        else:
            before, after = self._loss_before, text_loss(model, text)
        return Forgetting(
            objective=text.objective,
            text=text.name,
            text_sha256=text.sha256,
            tokens=text.tokens,
            loss_before=before,
            loss_after=after,
        )

    @contextmanager
    def _reason(self, name: str) -> Iterator[None]:
        try:
            with self.watch.phase("check"):
                yield
        except (NotMeasured, NotImplementedError) as error:
            self.reasons[name] = str(error)
        except Exception as error:  # out of memory, a model that refuses the batch
            self.reasons[name] = f"{type(error).__name__}: {error}"


@contextmanager
def _at(model: Any, device: str) -> Iterator[None]:
    """Have the model on a device, and back where it was: adapters are drawn where the weights they adapt are."""
    was = next(model.parameters()).device
    if was.type == device:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(was)


@contextmanager
def _untouched_generators() -> Iterator[None]:
    import torch

    here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=here):
        yield
