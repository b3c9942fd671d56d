"""A short run in a real `transformers.Trainer`, for methods that act between optimizer steps."""

from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments


class AfterEachStep(TrainerCallback):
    """Keeps what `look` returns after every optimizer step; comes after the method's own callbacks."""

    def __init__(self, look: Any) -> None:
        self.look, self.seen = look, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(self.look(kwargs["model"], kwargs["optimizer"]))


def train(method: Any, model: Any, folder: Any, look: Any = lambda *_: None, **arguments: Any) -> tuple[Trainer, list]:
    """Train an attached model on 32 random rows; return the trainer and what `look` saw after each step."""
    generator = torch.Generator().manual_seed(3)
    rows = [{"input_ids": torch.randint(3, 48, (7,), generator=generator), "labels": i % 2} for i in range(32)]
    settings = {"max_steps": 10, "learning_rate": 1e-2, "per_device_train_batch_size": 8} | arguments
    watch = AfterEachStep(look)
    trainer = Trainer(
        model,
        TrainingArguments(str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **settings),
        train_dataset=rows,
        callbacks=[*method.callbacks(), watch],
    )
    trainer.train()
    return trainer, watch.seen
