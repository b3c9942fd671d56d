#!/usr/bin/env bash
# On a bf16 base PEFT trains adapters in float32, but norms, heads and biases in bf16, where they do not move.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: what is trained is float32. The documentation of get_peft_model says of `autocast_adapter_dtype` (default
#   True) that adapter weights in bf16 are cast to float32, since stable training usually needs it.
# Behaviour: the cast reaches the layers of tuners only. The copies that `modules_to_save` trains, everything that LN
#   tuning trains, and the biases of `bias="all"` stay bf16. A norm's weight is 1.0, where bf16's next smaller number is
#   0.0039 away; a step of AdamW is about the learning rate, 5e-4. So each step is rounded away, for ever: LN tuning
#   trains nothing at all, without a word, although every gradient is there.
# Output seen (norm weights that differ from 1 after 50 steps of AdamW, learning rate 5e-4):
#   LoRA + modules_to_save=["norm"], float32 base: adapters float32, other float32, norms moved 160 of 160
#   LoRA + modules_to_save=["norm"], bf16 base: adapters float32, other bfloat16, norms moved 0 of 160
#   LN tuning, float32 base: trained float32, norms moved 160 of 160
#   LN tuning, bf16 base: trained bfloat16, norms moved 0 of 160
#   LoRA + bias="all", bf16 base: adapters float32, biases bfloat16
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
from peft import LNTuningConfig, LoraConfig, get_peft_model

ids = torch.arange(5, 37).reshape(4, 8)
all_norms = r".*norm"


def trained(dtype, config):
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, attention_bias=True,
                                              num_hidden_layers=2, num_attention_heads=4, initializer_range=0.2))
    model = get_peft_model(base.to(dtype), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4, weight_decay=0)
    for _ in range(50):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def dtypes(weights):
    return " ".join(sorted({str(p.dtype).removeprefix("torch.") for p in weights}))


def moved(weights):
    return f"{sum((p != 1).sum().item() for p in weights)} of {sum(p.numel() for p in weights)}"


lines = []
for dtype, title in ((torch.float32, "float32"), (torch.bfloat16, "bf16")):
    weights = trained(dtype, LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"]))
    norms = [p for name, p in weights.items() if "norm" in name]
    adapters = [p for name, p in weights.items() if "lora" in name]
    lines.append(f'LoRA + modules_to_save=["norm"], {title} base: adapters {dtypes(adapters)}, other {dtypes(norms)}, '
                 f"norms moved {moved(norms)}")
for dtype, title in ((torch.float32, "float32"), (torch.bfloat16, "bf16")):
    norms = trained(dtype, LNTuningConfig(target_modules=all_norms)).values()
    lines.append(f"LN tuning, {title} base: trained {dtypes(norms)}, norms moved {moved(norms)}")
weights = trained(torch.bfloat16, LoraConfig(target_modules=["q_proj"], bias="all"))
lines.append(f'LoRA + bias="all", bf16 base: adapters {dtypes([p for n, p in weights.items() if "lora" in n])}, '
             f"biases {dtypes([p for n, p in weights.items() if 'lora' not in n])}")
print("\n".join(lines))
expected = ["160 of 160", "bfloat16, norms moved 0 of 160", "160 of 160", "bfloat16, norms moved 0 of 160",
            "biases bfloat16"]
same = len(lines) == len(expected) and all(line.endswith(end) for line, end in zip(lines, expected, strict=True))
sys.exit(None if same else "changed: the dtypes or the counts differ")
PY
