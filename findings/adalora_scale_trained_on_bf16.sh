#!/usr/bin/env bash
# On a bf16 base AdaLoRA trains a constant of its formula, does not save it, and so reloads as another model.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: AdaLoRA's scale is alpha / rank; PEFT keeps the rank as the frozen parameter `ranknum`, and its source says
#   that it need not be saved because it is always the rank. The base's dtype does not decide what is trained.
# Behaviour: the cast of adapters to float32 puts a new tensor into the ParameterDict, and torch makes every tensor put
#   there a Parameter with requires_grad=True. So `ranknum` is trained, drifts away from the rank, and is missing in the
#   saved file: after a reload it is the rank again, and the logits differ. On a float32 base nothing is cast and
#   everything is right.
# Output seen (4 matrices of rank 4, 60 steps of AdamW, learning rate 0.02; the drift differs a little by processor):
#   float32 base: ranknum trained 0 of 4, farthest from 4: 0.00, logits after a reload off by 0.0000 of 7.04
#   bf16 base: ranknum trained 4 of 4, farthest from 4: 0.60, logits after a reload off by 0.3750 of 7.12
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
from peft import AdaLoraConfig, PeftModel, get_peft_model

ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def base(dtype):
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                              num_attention_heads=4, initializer_range=0.2)).to(dtype)


def constants(model):
    return [p for name, p in model.named_parameters() if "ranknum" in name]


results = []
for title, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
    config = AdaLoraConfig(target_modules=["q_proj", "v_proj"], init_r=4, target_r=4, total_step=100)
    model = get_peft_model(base(dtype), config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02, weight_decay=0)
    for _ in range(60):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = sum(p.requires_grad for p in constants(model))
    drift = max((p - 4).abs().item() for p in constants(model))
    logits = model.eval()(ids).logits
    model.save_pretrained(title)
    off = (PeftModel.from_pretrained(base(dtype), title).eval()(ids).logits - logits).abs().max().item()
    print(f"{title} base: ranknum trained {trained} of {len(constants(model))}, farthest from 4: {drift:.2f}, "
          f"logits after a reload off by {off:.4f} of {logits.abs().max().item():.2f}")
    results.append((trained, drift, off))
(trained, _, off), (trained_bf16, drift_bf16, off_bf16) = results
same = trained == 0 and off < 1e-4 and trained_bf16 == 4 and drift_bf16 > 0.1 and off_bf16 > 0.05
sys.exit(None if same else "changed: the scale is frozen, saved, or trained on a float32 base, too")
PY
