"""What a model answers once its adapter is merged into the backbone's weights, against what it answered before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lorta.api.task import DataSplits
from lorta.diagnostics.errors import NotMeasured
from lorta.diagnostics.forgetting import is_prompt
from lorta.models.backbone import Backbone, padding_id
from lorta.records.record import RunRecord
from lorta.records.sections import Merging

ROWS, LENGTH = 8, 64  # of the batch: the first training rows, cut
COLUMNS = ("input_ids", "prompt_ids")  # of the tasks' rows: what a model reads, the whole of it or its beginning


class MergingDiagnostic:
    """What a run's model answers before and after its adapter is merged."""

    name = "merging"

    def before(self, backbone: Backbone, device: str) -> None:
        """Do nothing: all of it comes after training."""

    def after(self, record: RunRecord, model: Any, backbone: Backbone, data: DataSplits) -> RunRecord:
        """Return the record with the difference; the model is merged from then on. Raises as `check_merging`."""
        return replace(record, merging=check_merging(model, fixed_rows(data.train), padding_id(backbone)))


def fixed_rows(rows: Any) -> list[list[int]]:
    """Return the token ids of the first rows, cut. Raises NotMeasured for rows that have none."""
    first = [rows[number] for number in range(min(ROWS, len(rows)))]
    for column in COLUMNS:
        if first and all(isinstance(row, Mapping) and column in row for row in first):
            return [list(map(int, row[column]))[:LENGTH] for row in first]
    raise NotMeasured("the task's rows are no token ids, so there are no logits to compare")


def check_merging(model: Any, rows: Sequence[Sequence[int]], padding: int) -> Merging:
    """Return the largest difference of logits; the model is merged from then on, and no longer what was trained.

    Token logits of padding are left out. In the weights' own precision, without autocast. Raises NotMeasured or
    NotImplementedError for a method that cannot be merged.
    """
    if is_prompt(model):
        raise NotMeasured("its virtual tokens are inputs, not weights: nothing can be merged")
    if not hasattr(model, "merge_adapter"):
        raise NotMeasured("it trains the model's own weights: nothing is left to merge")
    ids, attended = _batch(rows, padding, next(model.parameters()).device)
    before = _logits(model, ids, attended)
    model.merge_adapter()
    difference = (_logits(model, ids, attended) - before).abs().max() / before.abs().max()
    return Merging(rows=len(rows), largest_difference=float(difference))


def _batch(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows], device=device)
    attended = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, attended


@torch.no_grad()
def _logits(model: Any, ids: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    outputs = model.eval()(input_ids=ids, attention_mask=attended).logits.float()
    return outputs[attended.bool()] if outputs.dim() == 3 else outputs
