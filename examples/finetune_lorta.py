"""Fine-tune a classifier with LoRTA in plain PyTorch: python examples/finetune_lorta.py."""

from importlib.resources import files

import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lorta.embedded import embedded_rows
from lorta.tuner import LortaConfig

torch.manual_seed(0)
torch.set_num_threads(1)  # the fastest for a model this small
base = str(files("lorta.embedded") / "weights" / "tiny")  # any folder or hub name of a model
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
model = get_peft_model(model, LortaConfig(r=8, task_type="SEQ_CLS"))
model.print_trainable_parameters()


def batch(rows):
    """Return input ids and mask, both (rows, tokens), with labels (rows)."""
    texts = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]
    labels = torch.tensor([row["label"] for row in rows])
    return dict(tokenizer(*texts, padding=True, return_tensors="pt"), labels=labels)


train, validation = embedded_rows("rte", "train"), batch(embedded_rows("rte", "validation"))
optimizer = torch.optim.AdamW((weight for weight in model.parameters() if weight.requires_grad), lr=1e-2)
for epoch in range(2):
    model.train()
    for start in range(0, len(train), 32):
        model(**batch(train[start : start + 32])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        right = model.eval()(**validation).logits.argmax(dim=1) == validation["labels"]
    print(f"epoch {epoch + 1}: accuracy {right.float().mean():.3f}")
