"""Load the adapter of a finished run with PEFT and predict: python examples/load_run.py runs/ID.

The run: python run.py adapter=lorta task=glue/rte
"""

import json
import sys
from importlib.resources import files
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lorta.tuner  # noqa: F401  registers LoRTA with PEFT; an exported LoRA would not need it
from lorta.embedded import embedded_rows

run = Path(sys.argv[1])
record = json.loads((run / "record.json").read_text())
base = str(files("lorta.embedded") / "weights" / "tiny")  # for other models: the same as model.path= of the run
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
model = PeftModel.from_pretrained(model, str(run / "adapter")).eval()  # adapter and classification head

rows = embedded_rows("rte", "validation")
texts = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]
with torch.no_grad():
    predictions = model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits.argmax(dim=1)
accuracy = (predictions == torch.tensor([row["label"] for row in rows])).float().mean()
print(f"{record['adapter']['name']}: accuracy {accuracy:.4f}")
print(f"recorded: {record['metrics'][record['task']['split_primary']]['accuracy']['value']:.4f}")
