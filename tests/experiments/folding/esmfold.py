"""What the tests of this folder share: the task as its YAML says, and the shipped ESMFold."""

import torch

from experiments.folding.batches import collate
from experiments.folding.losses import loss_terms, total_loss
from experiments.folding.settings import LossWeights
from experiments.folding.target import Target
from experiments.folding.task import FoldingTask
from lorta.api.adapter import Adapter
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.config.settings import RunSettings
from lorta.embedded.folds import fold_rows
from lorta.models.backbone import Backbone
from lorta.models.locate import find_model


def settings(*overrides: str) -> RunSettings:
    """The settings of task=folding and these overrides."""
    problems = Problems()
    (cell,) = compose_cells(parse_overrides(["task=folding", *overrides], False, CONF, problems), CONF, problems)
    assert not problems
    return RunSettings.model_validate(cell.config)


def task_and_backbone(*overrides: str) -> tuple[FoldingTask, Backbone]:
    """The task, and the shipped model as it loads it."""
    chosen = settings(*overrides)
    task = build(chosen.task)
    return task, task.load_backbone(find_model(chosen.model), chosen.model.dtype)


def adapter(*overrides: str) -> Adapter:
    """The adapter as its YAML says."""
    return build(settings(*overrides).adapter)


def batch(count: int = 3) -> dict[str, torch.Tensor]:
    """The first held-out folds, padded to the longest."""
    return collate([Target(*row) for row in fold_rows("validation")[:count]])


def loss(model: torch.nn.Module, rows: dict[str, torch.Tensor], recycles: int = 0) -> torch.Tensor:
    """The loss of the task's YAML."""
    found = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], num_recycles=recycles)
    weights = LossWeights(**settings().task["losses"])
    return total_loss(loss_terms(found, rows, 0.9), weights, rows["attention_mask"].sum(dim=1))
