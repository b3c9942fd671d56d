"""A step's loss and gradient do not depend on the parts in which its batch is computed, for every kind of task."""

from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

from experiments.classification import train_classifier
from experiments.folding.batches import TargetRows, TrainingBatches
from experiments.folding.settings import LossWeights
from experiments.folding.target import Target
from experiments.folding.training import train_folding
from experiments.preference import Reference, train_preference
from experiments.supervised import train_supervised
from lorta.embedded import tasks
from lorta.embedded.folds import fold_rows
from lorta.training import trainer as training
from lorta.training.checkpoint import Checkpoints
from lorta.training.context import DataSplits, TrainingContext
from tests.contract.backbones import adapter, backbone
from tests.experiments.folding import esmfold
from tests.training.test_trainer import Padding, settings

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, PARTS = 8, (2, 4, 8)
ROWS = 23  # the last step has seven rows: with two or four parts, one of them is short
CLIPPED = 0.05  # below every gradient norm here, so that each step is clipped


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tasks.FINGERPRINTS.with_name("weights") / "tiny_llama")


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 1)


def ids(seed: int) -> list[list[int]]:
    """Rows of random tokens, of unlike lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 60, (3 + row % 5,), generator=generator).tolist() for row in range(ROWS)]


def in_parts(parts: int, **changes):
    values = {"per_device_train_batch_size": BATCH // parts, "gradient_accumulation_steps": parts}
    values |= {"num_train_epochs": 1.0, "max_grad_norm": CLIPPED, "warmup_ratio": 0.0}
    return settings(**values | changes)


def classify(parts: int, folder: Path, architecture: str, method: str, regression: bool):
    base = backbone(architecture)
    if regression:
        base.model.config.problem_type, base.model.config.num_labels, base.model.num_labels = "regression", 1, 1
        head = getattr(base.model, "score", None) or base.model.classifier.out_proj
        head.weight.data = head.weight.data[:1]
        head.bias = None if head.bias is None else torch.nn.Parameter(head.bias.data[:1])
    model = adapter(method).attach(base, "SEQ_CLS")
    labels = [row / 7 for row in range(ROWS)] if regression else [row % 2 for row in range(ROWS)]
    words = ids(0)
    masks = [[1] * len(row) for row in words]
    rows = Dataset.from_dict({"input_ids": words, "attention_mask": masks, "labels": labels})
    base = replace(base, tokenizer=Padding())
    context = TrainingContext(base, DataSplits(rows, rows), in_parts(parts), 0, folder)
    return train_classifier(model, context, rows, lambda: 0.0)


def instruct(parts: int, folder: Path, tokenizer):
    base = replace(backbone("llama_lm"), tokenizer=tokenizer)
    model = adapter("lora", task="instruct").attach(base, "CAUSAL_LM")
    words = ids(1)
    labels = [[-100] * (row % 3) + word[row % 3 :] for row, word in enumerate(words)]  # parts differ in counted tokens
    rows = Dataset.from_dict({"input_ids": words, "labels": labels})
    context = TrainingContext(base, DataSplits(rows, rows), in_parts(parts), 0, folder)
    return train_supervised(model, context, lambda: 0.0)


def prefer(parts: int, folder: Path, tokenizer):
    base = replace(backbone("llama_lm"), tokenizer=tokenizer)
    model = adapter("lora", task="dpo").attach(base, "CAUSAL_LM")
    columns = {"prompt_ids": ids(2), "chosen_ids": ids(3), "rejected_ids": ids(4)}
    rows = Dataset.from_dict(columns)
    context = TrainingContext(base, DataSplits(rows, rows), in_parts(parts), 0, folder)
    return train_preference(model, Reference(None, is_start=True), context, lambda: 0.0, 0.5)


def fold(parts: int, folder: Path, callbacks=(), checkpoints=None, **changes):
    task, base = esmfold.task_and_backbone()
    torch.manual_seed(0)
    model = esmfold.adapter("adapter=lora", "rank=2").attach(base, task.peft_task_type)
    targets = [Target(*row) for row in fold_rows("train")[:15]]  # the last step has seven
    batches = TrainingBatches(14, 2, True, 0, parts, ceil(15 * parts / BATCH))
    chosen = in_parts(parts, group_by_length=False, shuffle_groups=False, **changes)
    weights = LossWeights(**task.losses)
    rows = TargetRows(targets)
    context = TrainingContext(base, DataSplits(rows, rows), chosen, 0, folder, callbacks, checkpoints)
    return train_folding(model, context, batches, weights, 0.9, lambda: 0.0)


TASKS = {
    "classes of RoBERTa, whose loss takes no count": lambda *given: classify(*given[:2], "roberta", "lora", False),
    "classes of Llama, whose loss takes a count": lambda *given: classify(*given[:2], "llama", "lora", False),
    "all weights, without PEFT": lambda *given: classify(*given[:2], "roberta", "full", False),
    "scores": lambda *given: classify(*given[:2], "roberta", "lorta", True),
    "instructions": instruct,
    "preferences": prefer,
    "folds": lambda *given: fold(*given[:2]),
}


EVERY = ("classes of RoBERTa, whose loss takes no count", "instructions", "preferences")  # in 2, 4, 8 parts


@pytest.mark.parametrize("name", TASKS)
def test_loss_gradient_and_steps_are_those_of_the_whole_batch(name, tokenizer, tmp_path):
    def series(parts: int):
        outcome = TASKS[name](parts, tmp_path / str(parts), tokenizer)
        assert all(row["grad_norm"] > CLIPPED for row in outcome.history)
        return [(row["loss"], row["grad_norm"]) for row in outcome.history]

    whole = series(1)
    assert len(whole) == (2 if name == "folds" else 3)
    for parts in PARTS if name in EVERY else (4,):
        found = series(parts)
        assert found == [pytest.approx(step, rel=1e-4) for step in whole], f"in {parts} parts"


class StopAt(TrainerCallback):
    """Ends the work at the beginning of one step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt

    def state_dict(self, model):
        return {}

    def load_state_dict(self, state, model):
        pass


def test_a_resumed_run_goes_on_with_the_crops_and_recycles_that_it_would_have_had(tmp_path):
    def history(folder, checkpoints=None, *callbacks):
        return fold(2, tmp_path / folder, callbacks, checkpoints, num_train_epochs=2.0).history

    whole = history("whole")
    for every in (1, 2):  # within an epoch, and at its end
        folder = tmp_path / str(every)
        with pytest.raises(KeyboardInterrupt):
            history(folder, Checkpoints(folder / "checkpoint", {}, every, None), StopAt(every))
        again = Checkpoints(folder / "checkpoint", {}, every, None)
        assert again.step == every
        assert history(folder, again) == whole
