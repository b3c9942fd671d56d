"""What makes the embedded tasks a fair ground: a head alone does not solve them, a small adapter does."""

import numpy as np
import peft
import pytest
import torch
from sklearn.metrics import accuracy_score, matthews_corrcoef
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from lorta.embedded import EMBEDDED_TASKS, embedded_rows, tasks

FOLDER = tasks.FINGERPRINTS.with_name("weights") / "tiny"
BATCH_SIZE, EPOCHS = 32, 3
SLOW = pytest.mark.slow


def batches(task: str, split: str, tokenizer, order: list[int]):
    rows = embedded_rows(task, split)
    columns = [column for column in rows[0] if column not in ("label", "idx")]
    for start in range(0, len(rows), BATCH_SIZE):
        chosen = [rows[number] for number in order[start : start + BATCH_SIZE]]
        texts = ([row[column] for row in chosen] for column in columns)
        yield tokenizer(*texts, padding=True, return_tensors="pt"), torch.tensor([row["label"] for row in chosen])


def score(task: str, truth: np.ndarray, logits: np.ndarray) -> float:
    if task == "stsb":
        return float(np.corrcoef(truth, logits[:, 0])[0, 1])
    return (matthews_corrcoef if task == "cola" else accuracy_score)(truth, logits.argmax(-1))


def train_and_score(task: str, adapter: bool) -> float:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=1 if task == "stsb" else 2)
    model.requires_grad_(False)
    if adapter:
        config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
        model = peft.get_peft_model(model, config)
    else:
        model.classifier.requires_grad_(True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3 if adapter else 2e-3, weight_decay=0.0)
    steps = EPOCHS * -(-tasks.SIZES["train"] // BATCH_SIZE)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 16, steps)
    for _ in range(EPOCHS):
        for inputs, labels in batches(task, "train", tokenizer, torch.randperm(tasks.SIZES["train"]).tolist()):
            model(**inputs, labels=labels).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        held_out = batches(task, "validation", tokenizer, list(range(tasks.SIZES["validation"])))
        pairs = [(labels.numpy(), model(**inputs).logits.numpy()) for inputs, labels in held_out]
    return score(task, *(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


@pytest.mark.parametrize(
    "task", [task if task == "mrpc" else pytest.param(task, marks=SLOW) for task in EMBEDDED_TASKS]
)
def test_lora_solves_what_a_head_alone_does_not(task):
    assert train_and_score(task, adapter=False) <= 0.75
    assert train_and_score(task, adapter=True) >= 0.9
