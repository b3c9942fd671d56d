#!/usr/bin/env bash
# PEFT's TinyLoRA trains 64 numbers a matrix by default, of which 60 are redundant.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: the documentation says that `u` (default 64) is the length of the trained vector and controls how much the
#   adaptation can express; `r` (default 2) is the rank of the frozen frame.
# Behaviour: the trained vector is mapped to an r x r matrix between frozen frames, which has r * r entries, 4 by
#   default. So no u above 4 can express anything more than u = 4: of the 64 numbers 60 are copies in other words, the
#   count of trained parameters is 16 times what it means, and a curve of scores over u at the default r is flat from 4
#   on.
# Output seen (dimension of the space of updates that the trained vector reaches):
#   r = 2, u =  1: trained a matrix  1, updates span  1
#   r = 2, u =  4: trained a matrix  4, updates span  4
#   r = 2, u = 16: trained a matrix 16, updates span  4
#   r = 2, u = 64: trained a matrix 64, updates span  4
#   r = 8, u = 64: trained a matrix 64, updates span 64
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
from peft import TinyLoraConfig, get_peft_model

same = True
for rank, length in ((2, 1), (2, 4), (2, 16), (2, 64), (8, 64)):
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                              num_attention_heads=4, initializer_range=0.2))
    model = get_peft_model(base, TinyLoraConfig(target_modules=["q_proj"], r=rank, u=length))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    (vector,) = (p for p in model.parameters() if p.requires_grad)
    updates = []
    for i in range(vector.numel()):
        vector.data = torch.nn.functional.one_hot(torch.tensor(i), vector.numel()).to(vector).view_as(vector)
        updates.append(layer.get_delta_weight("default").detach().flatten().double())
    span = torch.linalg.matrix_rank(torch.stack(updates), rtol=1e-4).item()
    print(f"r = {rank}, u = {length:2d}: trained a matrix {vector.numel():2d}, updates span {span:2d}")
    same &= vector.numel() == length and span == min(length, rank * rank)
sys.exit(None if same else "changed: the updates span another space")
PY
