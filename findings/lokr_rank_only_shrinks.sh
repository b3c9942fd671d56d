#!/usr/bin/env bash
# From some rank on, a higher rank of PEFT's LoKr adds no parameter and no freedom: it only makes the update smaller.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: the documentation calls `r` LoKr's rank; as with LoRA and LoHa, twice the rank is about twice the
#   parameters.
# Behaviour: LoKr writes a matrix as the Kronecker product of a small and a larger one, and only the larger one has a
#   rank: for a 64 x 64 matrix both are 8 x 8. Where r is not below half of its side, here from r = 4 on, PEFT takes the
#   whole matrix and ignores the rank, without a warning. The scale alpha / r still falls with r. So a search over ranks
#   4, 8, 16, 64 is one over learning rates, of one model. RoBERTa-base's 768 x 768 is 24 x 24 by 32 x 32: there 16 and
#   above are one size.
# Output seen (64 x 64, alpha 8, the same random numbers in the factors; LoHa beside it):
#   rank  2: LoKr   96 parameters, rank of the update 16, its norm 241.00; LoHa   512 parameters
#   rank  4: LoKr  128 parameters, rank of the update 64, its norm 125.44; LoHa  1024 parameters
#   rank  8: LoKr  128 parameters, rank of the update 64, its norm 62.72; LoHa  2048 parameters
#   rank 16: LoKr  128 parameters, rank of the update 64, its norm 31.36; LoHa  4096 parameters
#   rank 64: LoKr  128 parameters, rank of the update 64, its norm 7.84; LoHa 16384 parameters
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
import warnings

import torch
import transformers as hf
from peft import LoHaConfig, LoKrConfig, get_peft_model


def adapted(config):
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=64, intermediate_size=48, num_hidden_layers=1,
                                              num_attention_heads=4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = get_peft_model(base, config)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    weights = [p for p in layer.parameters() if p.requires_grad]
    torch.manual_seed(1)
    for weight in weights:
        torch.nn.init.normal_(weight)
    silent = not any("rank" in str(warning.message).lower() for warning in caught)
    return sum(p.numel() for p in weights), layer.get_delta_weight("default").detach(), silent


sizes, norms, quiet = [], [], True
for rank in (2, 4, 8, 16, 64):
    size, update, silent = adapted(LoKrConfig(target_modules=["q_proj"], r=rank, alpha=8))
    other, _, _ = adapted(LoHaConfig(target_modules=["q_proj"], r=rank))
    sizes.append(size)
    norms.append(update.norm().item())
    quiet &= silent
    true_rank = torch.linalg.matrix_rank(update).item()
    print(f"rank {rank:2d}: LoKr {size:4d} parameters, rank of the update {true_rank:2d}, its norm {norms[-1]:.2f}; "
          f"LoHa {other:5d} parameters")
same = sizes == [96, 128, 128, 128, 128] and quiet
same &= all(abs(norm / norms[1] - 4 / rank) < 0.01 for norm, rank in zip(norms[1:], (4, 8, 16, 64), strict=True))
sys.exit(None if same else "changed: the rank adds parameters, warns, or leaves the scale")
PY
