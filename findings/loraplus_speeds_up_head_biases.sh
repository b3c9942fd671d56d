#!/usr/bin/env bash
# PEFT's LoRA+ optimizer trains the head's biases at 16 times the rate of the head's weights.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: create_loraplus_optimizer's documentation says that `loraplus_lr_ratio` is the ratio of the rates of LoRA's
#   B and A, and `lr` the rate of A. The head of a classifier is neither: all of it should be trained at `lr`.
# Behaviour: parameters are sorted by their number of axes. Whatever has one axis and is no LoRA matrix goes into B's
#   group: biases of the head, and norms that modules_to_save trains. Their rate is `lr` times the ratio, 16 or more by
#   the paper's advice, while the head's weights have `lr`.
# Output seen (lr 0.001, ratio 16, RoBERTa's classifier and a trained norm):
#   0.001 classifier.dense.weight
#   0.001 classifier.out_proj.weight
#   0.001 lora_A
#   0.016 LayerNorm.bias
#   0.016 LayerNorm.weight
#   0.016 classifier.dense.bias
#   0.016 classifier.out_proj.bias
#   0.016 lora_B
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps peft==0.21.2 accelerate==1.15.0 psutil==7.2.2 transformers==5.23.0 tokenizers==0.23.3 \
  safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3 \
  regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 shellingham==1.5.4 rich==15.0.0 \
  markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 pydantic==2.14.3 pydantic_core==2.50.4 \
  annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 \
  idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

base = hf.RobertaForSequenceClassification(hf.RobertaConfig(vocab_size=99, hidden_size=32, intermediate_size=48,
                                                            num_hidden_layers=1, num_attention_heads=4))
config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["attention.output.LayerNorm"])
model = get_peft_model(base, config)
optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
names = {id(p): name.replace("modules_to_save.default.", "") for name, p in model.named_parameters()}
rates = set()
for group in optimizer.param_groups:
    for parameter in group["params"]:
        name = names[id(parameter)]
        short = name.split(".")[-3] if "lora_" in name else name[max(name.find("LayerNorm"), name.find("classifier")):]
        rates.add((f"{group['lr']:.3f}", short))
for rate, name in sorted(rates):
    print(rate, name)
fast = {name for rate, name in rates if rate == "0.016"}
head = {"classifier.dense.bias", "classifier.out_proj.bias"}
same = fast == head | {"LayerNorm.bias", "LayerNorm.weight", "lora_B"} and len(rates) == 8
sys.exit(None if same else "changed: the groups hold other parameters")
PY
