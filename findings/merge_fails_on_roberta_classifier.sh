#!/usr/bin/env bash
# PEFT's merge_and_unload raises on RoBERTa's classifier for VeRA, LoHa and others, but not for LoRA.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: `merge_and_unload` is documented to merge the adapter's layers into the base model, and to return it.
#   VeRA, LoHa and FourierFT can merge: `merge_adapter` works.
# Behaviour: with task_type="SEQ_CLS" PEFT keeps a trained copy of the head and puts it back at the end by a routine for
#   single layers that reads `.weight`. RoBERTa's head is a module of two layers without `.weight`: AttributeError,
#   after the run, when the result is to be saved. LoRA has a routine of its own, and so works. On BERT, whose head is
#   one layer, all work.
# Output seen:
#   BERT    LoRA      merged
#   BERT    VeRA      merged
#   BERT    LoHa      merged
#   BERT    FourierFT merged
#   RoBERTa LoRA      merged
#   RoBERTa VeRA      AttributeError: 'RobertaClassificationHead' object has no attribute 'weight'
#   RoBERTa LoHa      AttributeError: 'RobertaClassificationHead' object has no attribute 'weight'
#   RoBERTa FourierFT AttributeError: 'RobertaClassificationHead' object has no attribute 'weight'
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
from peft import FourierFTConfig, LoHaConfig, LoraConfig, VeraConfig, get_peft_model

sizes = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
models = {
    "BERT": lambda: hf.BertForSequenceClassification(hf.BertConfig(**sizes)),
    "RoBERTa": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**sizes)),
}
common = dict(task_type="SEQ_CLS", target_modules=["query"])
methods = {
    "LoRA": lambda: LoraConfig(r=2, **common),
    "VeRA": lambda: VeraConfig(r=4, **common),
    "LoHa": lambda: LoHaConfig(r=2, **common),
    "FourierFT": lambda: FourierFTConfig(n_frequency=10, **common),
}
same = True
for model_name, build in models.items():
    for method, config in methods.items():
        model = get_peft_model(build(), config())
        model.merge_adapter()
        model.unmerge_adapter()
        try:
            merged = model.merge_and_unload()
            result = "merged" if isinstance(merged, hf.PreTrainedModel) else type(merged).__name__
        except AttributeError as error:
            result = f"AttributeError: {error}"
        print(f"{model_name:7s} {method:9s} {result}")
        same &= result.startswith("AttributeError") == (model_name == "RoBERTa" and method != "LoRA")
sys.exit(None if same else "changed: other methods or models fail")
PY
