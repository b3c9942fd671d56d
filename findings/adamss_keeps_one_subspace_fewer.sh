#!/usr/bin/env bash
# PEFT's AdaMSS with adaptive subspaces keeps one subspace fewer than `asa_target_subspaces`; with 1, it freezes all.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: `asa_target_subspaces` is documented as the total number of active subspaces at the end of the schedule: that
#   many go on training, and with 1 one does.
# Behaviour: the threshold is the score of the last subspace to be kept, and only those above it stay. So one more is
#   frozen. Equal scores are none of them above it: with 1, or where all scores are still 0 (a step whose learning rate is
#   0, since one matrix of each pair starts at 0), every subspace is frozen and the next loss has no gradient. A classifier
#   goes on with its head alone, without a word.
# Output seen (8 subspaces, 10 steps):
#   asa_target_subspaces 6: 5 of 8 still trained
#   asa_target_subspaces 4: 3 of 8 still trained
#   asa_target_subspaces 2: 1 of 8 still trained
#   asa_target_subspaces 1: 0 of 8 still trained
#   then: RuntimeError, element 0 of tensors does not require grad and does not have a grad_fn
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
  idna==3.20 certifi==2026.10.18 truststore==0.10.5 \
  cloudpickle==3.1.2 joblib==1.6.0 narwhals==2.29.0 scikit-learn==1.9.1 scipy==1.17.1 threadpoolctl==3.8.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as hf
from peft import AdamssConfig, get_peft_model


def trained(target):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=50, **shape))
    schedule = {"init_warmup": 0, "final_warmup": 10, "mask_interval": 10, "asa_target_subspaces": target}
    config = AdamssConfig(r=8, num_subspaces=2, subspace_rank=1, use_asa=True, **schedule,
                          target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    words = torch.randint(0, 50, (4, 10))
    for step in range(1, 11):
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    kept = [weight.requires_grad for name, weight in model.named_parameters() if "adamss_A" in name]
    print(f"asa_target_subspaces {target}: {sum(kept)} of {len(kept)} still trained")
    return model, words, sum(kept)


counts = [trained(target)[2] for target in (6, 4, 2)]
model, words, none = trained(1)
error = ""
try:
    model(input_ids=words, labels=words).loss.backward()
except RuntimeError as failure:
    error = str(failure)
print(f"then: RuntimeError, {error}" if error else "then: a gradient")
same = counts == [5, 3, 1] and none == 0 and "does not require grad" in error
sys.exit(None if same else "changed: as many subspaces as asked for are kept")
PY
