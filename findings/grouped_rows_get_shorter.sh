#!/usr/bin/env bash
# transformers' group_by_length sorts training by length: each 50 steps go from the longest rows to the shortest.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, accelerate 1.15.0.
# Expected: train_sampling_strategy="group_by_length" puts rows of roughly the same length into a batch "while keeping a
#   bit of randomness": batches are alike inside, and come in random order.
# Behaviour: rows are permuted, cut into pools of 50 batches (a quarter of the batches, if that is less), and each pool is
#   sorted by length. Nobody shuffles the batches of a pool afterwards, so training goes from long rows to short ones,
#   pool after pool, and always ends on the shortest. Only the choice of the pool is random. Where length says something
#   about a row (its source, its label), a model forgets the long rows at each pool's end: short fine-tuning on STS-B ended
#   in constant answers until the batches were shuffled.
# Output seen (1,600 rows of 1 to 100 tokens, batches of 8, the label is the length; the model is one number, which least
#   squares should bring to the labels' average of 50.5):
#   group_by_length: drift in each pool -1.00 -1.00 -1.00 -1.00; the number after one epoch 9.5
#   random: drift in each pool 0.20 0.10 0.09 -0.04; the number after one epoch 48.6
#   (drift is the rank correlation of a step's place in its pool of 50 with the length of its rows)
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps accelerate==1.15.0 psutil==7.2.2 transformers==5.23.0 tokenizers==0.23.3 \
  safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3 \
  regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 shellingham==1.5.4 rich==15.0.0 \
  markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 pydantic==2.14.3 pydantic_core==2.50.4 \
  annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 \
  idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from transformers import Trainer, TrainingArguments


class OneNumber(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = torch.nn.Parameter(torch.tensor(50.5))

    def forward(self, input_ids, labels):
        return {"loss": (self.answer - labels).square().mean()}


ROWS = [{"input_ids": [7] * length, "labels": float(length)} for length in range(1, 101)] * 16


def collate(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    steps.append(sum(row["labels"] for row in rows) / len(rows))
    words = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": words, "labels": torch.tensor([row["labels"] for row in rows])}


def ranks(values):
    return torch.tensor(values).argsort().argsort().double()


def drift(pool):
    return torch.corrcoef(torch.stack([ranks(list(range(len(pool)))), ranks(pool)]))[0, 1].item()


ends, drifts = {}, {}
for strategy in ("group_by_length", "random"):
    steps, model = [], OneNumber()
    arguments = TrainingArguments(
        "trained", train_sampling_strategy=strategy, per_device_train_batch_size=8, num_train_epochs=1, seed=0,
        learning_rate=0.1, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, report_to="none",
        use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )
    Trainer(model, arguments, train_dataset=ROWS, data_collator=collate).train()
    drifts[strategy] = [drift(steps[first : first + 50]) for first in range(0, 200, 50)]
    ends[strategy] = model.answer.item()
    print(f"{strategy}: drift in each pool {' '.join(f'{value:.2f}' for value in drifts[strategy])}; "
          f"the number after one epoch {ends[strategy]:.1f}")
same = all(value < -0.95 for value in drifts["group_by_length"]) and ends["group_by_length"] < 20
same &= all(abs(value) < 0.5 for value in drifts["random"]) and abs(ends["random"] - 50.5) < 15
sys.exit(None if same else "changed: steps no longer go from long rows to short ones")
PY
