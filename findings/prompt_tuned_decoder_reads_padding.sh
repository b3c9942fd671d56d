#!/usr/bin/env bash
# A prompt-tuned Llama classifier gives a row other logits in another batch: it reads the padding.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: a row's logits do not depend on how much it is padded: with `pad_token_id` set, the classifiers of decoders
#   take the last token that is no padding, and PEFT offers its prompt methods for task_type="SEQ_CLS".
# Behaviour: prompt tuning and P-tuning hand embeddings to the model, which then cannot see which tokens are padding and
#   takes the very last position, although PEFT passes the attention mask along, too. transformers warns once, in its
#   log, and goes on. So each score depends on the longest row of its batch, in training and in evaluation.
# Output seen (largest difference of a row's logits, alone and with two padding tokens on the right, and their size):
#   base model   0.0000 of 1.71
#   LoRA         0.0000 of 1.71
#   PromptTuning 1.2533 of 3.25
#   P-tuning     1.7506 of 1.59
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
from peft import LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

methods = {
    "base model": None,
    "LoRA": LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"]),
    "PromptTuning": PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    "P-tuning": PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=2, encoder_hidden_size=8),
}
row = torch.tensor([[5, 6, 7, 8]])
padded = torch.tensor([[5, 6, 7, 8, 0, 0]])
differences = {}
for name, config in methods.items():
    torch.manual_seed(0)
    model = hf.LlamaForSequenceClassification(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48,
                                                             num_hidden_layers=2, num_attention_heads=4,
                                                             initializer_range=0.2, pad_token_id=0))
    model = (get_peft_model(model, config) if config else model).eval()
    with torch.no_grad():
        alone = model(input_ids=row, attention_mask=(row != 0).long()).logits
        batched = model(input_ids=padded, attention_mask=(padded != 0).long()).logits
    differences[name] = (alone - batched).abs().max().item()
    print(f"{name:12s} {differences[name]:.4f} of {alone.abs().max().item():.2f}")
same = all((difference > 0.05) == (name in ("PromptTuning", "P-tuning")) for name, difference in differences.items())
sys.exit(None if same else "changed: prompts are right, or another method is wrong")
PY
