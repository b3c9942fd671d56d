#!/usr/bin/env bash
# TRL's DPOTrainer says that dropout is off, but leaves a decoder's attention dropout on.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, trl 1.16.0, peft 0.21.2, datasets 5.2.0.
# Expected: `disable_dropout` (default True) is documented as disabling dropout in the model and the reference. A fresh
#   LoRA equals its reference, the model without it, so that the first loss is log 2 = 0.6931 and every reward is 0.
# Behaviour: TRL sets `p = 0` on torch.nn.Dropout modules. Llama, Mistral, Qwen3, Phi-3, Gemma 2 and GPT-NeoX have none
#   for attention: they hand the number `config.attention_dropout` to the attention function. It stays on, in policy and
#   reference, with masks of their own. The loss starts elsewhere, and noise is taken for reward. With LoRA's own
#   dropout, a module, all is well.
# Output seen (the last line's numbers change with the random numbers):
#   attention_dropout=0.0 lora_dropout=0.0: first loss 0.6931, reward of chosen 0.0000, of rejected 0.0000
#   attention_dropout=0.0 lora_dropout=0.5: first loss 0.6931, reward of chosen 0.0000, of rejected 0.0000
#   attention_dropout=0.3 lora_dropout=0.0: first loss 0.6236, reward of chosen 0.0869, of rejected -0.0942
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps trl==1.16.0 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 python-dateutil==4.0.0 six==1.17.0 \
  dill==0.4.1 multiprocess==0.70.19 xxhash==4.1.0 peft==0.21.2 accelerate==1.15.0 psutil==7.2.2 \
  transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 \
  packaging==26.3 PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 \
  shellingham==1.5.4 rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 \
  pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 \
  httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import math
import sys

import datasets
import torch
import transformers as hf
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import DPOConfig, DPOTrainer

datasets.disable_progress_bars()
words = {w: i for i, w in enumerate("<pad> <unk> </s> what is the capital of france paris rome a b c d e".split())}
backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
pair = dict(prompt="what is the capital of france", chosen=" paris a b", rejected=" rome c d e")


def first_step(attention_dropout, lora_dropout):
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(words), hidden_size=32, intermediate_size=48,
                                               num_hidden_layers=2, num_attention_heads=4, initializer_range=0.2,
                                               pad_token_id=0, attention_dropout=attention_dropout))
    options = DPOConfig("out", max_steps=1, per_device_train_batch_size=8, logging_steps=1, report_to=[], use_cpu=True,
                        bf16=False, gradient_checkpointing=False, disable_tqdm=True, save_strategy="no")
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = DPOTrainer(model, args=options, train_dataset=datasets.Dataset.from_list([pair] * 8),
                             processing_class=tokenizer,
                             peft_config=LoraConfig(target_modules=["q_proj"], lora_dropout=lora_dropout))
        trainer.train()
    step = trainer.state.log_history[0]
    return step["loss"], step["rewards/chosen"], step["rewards/rejected"]


off = []
for attention_dropout, lora_dropout in ((0.0, 0.0), (0.0, 0.5), (0.3, 0.0)):
    loss, chosen, rejected = first_step(attention_dropout, lora_dropout)
    print(f"attention_dropout={attention_dropout} lora_dropout={lora_dropout}: first loss {loss:.4f}, "
          f"reward of chosen {chosen:.4f}, of rejected {rejected:.4f}")
    off.append(max(abs(loss - math.log(2)), abs(chosen), abs(rejected)))
same = off[0] < 1e-5 and off[1] < 1e-5 and off[2] > 1e-3
sys.exit(None if same else "changed: attention dropout is off, or another dropout is on")
PY
