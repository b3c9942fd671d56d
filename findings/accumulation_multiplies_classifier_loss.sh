#!/usr/bin/env bash
# Gradient accumulation multiplies a sequence classifier's loss and gradient by the number of batches.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2, accelerate 1.15.0.
# Expected: 16 rows in one batch and in 4 batches of 4 give the same step. The documentation of TrainingArguments
#   presents `gradient_accumulation_steps` as a way to a larger effective batch, and Trainer divides the loss by
#   `num_items_in_batch` (for models that take it) or by the number of batches (for all others).
# Behaviour: Trainer only asks whether `forward` takes `**kwargs`. Most classifiers of this release do, but pass none of
#   them to their loss, which stays the mean over one small batch. So nobody divides: loss and gradient are 4 times as
#   large, and gradient clipping, on by default, clips steps that it should leave alone. It is no matter of PEFT: the
#   bare model does the same. So do DeBERTa-v2, DistilBERT, ELECTRA, GPT-2 and ModernBERT. ESM, whose `forward` takes
#   no `**kwargs`, is right.
# Output seen (each pair: one batch of 16, then 4 batches of 4):
#   BERT    bare  loss 0.6975 2.7902 ratio 4.00  gradient norm 0.8023  3.2094 ratio 4.00
#   BERT    LoRA  loss 0.6975 2.7902 ratio 4.00  gradient norm 0.2323  0.9291 ratio 4.00
#   RoBERTa bare  loss 0.7023 2.8094 ratio 4.00  gradient norm 1.7512  7.0048 ratio 4.00
#   Llama   bare  loss 0.9312 3.7246 ratio 4.00  gradient norm 3.5541 14.2165 ratio 4.00
#   ESM     bare  loss 0.7523 0.7523 ratio 1.00  gradient norm 1.7849  1.7849 ratio 1.00
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
import contextlib
import io
import sys

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

sizes = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             initializer_range=0.2, pad_token_id=0)
encoder = dict(sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
rows = [dict(input_ids=[5 + i % 9, 6, 7, 8 + i % 5], labels=i % 2) for i in range(16)]
models = {
    "BERT": lambda: hf.BertForSequenceClassification(hf.BertConfig(**encoder)),
    "RoBERTa": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**encoder)),
    "Llama": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**sizes)),
    "ESM": lambda: hf.EsmForSequenceClassification(hf.EsmConfig(**encoder, position_embedding_type="rotary")),
}


def first_step(name, lora, batch, batches):
    torch.manual_seed(0)
    model = models[name]()
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))
    options = hf.TrainingArguments("out", max_steps=1, per_device_train_batch_size=batch, max_grad_norm=0,
                                   gradient_accumulation_steps=batches, logging_steps=1, save_strategy="no",
                                   report_to=[], use_cpu=True, disable_tqdm=True)
    trainer = hf.Trainer(model, options, train_dataset=rows)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]


same = True
for name, lora in (("BERT", False), ("BERT", True), ("RoBERTa", False), ("Llama", False), ("ESM", False)):
    loss, norm = first_step(name, lora, 16, 1)
    split_loss, split_norm = first_step(name, lora, 4, 4)
    print(f"{name:7s} {'LoRA' if lora else 'bare'}  loss {loss:.4f} {split_loss:.4f} ratio {split_loss / loss:.2f}"
          f"  gradient norm {norm:.4f} {split_norm:7.4f} ratio {split_norm / norm:.2f}")
    factor = 1 if name == "ESM" else 4
    same &= abs(split_loss / loss - factor) < 0.01 and abs(split_norm / norm - factor) < 0.01
sys.exit(None if same else "changed: the ratios are not 4, 4, 4, 4 and 1")
PY
