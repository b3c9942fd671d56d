#!/usr/bin/env bash
# PEFT's LoRA-GA adapter reloads as another model, without a word, where PiSSA and OLoRA reload right.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: save_pretrained is documented to save an adapter so that PeftModel.from_pretrained can load it again. PiSSA,
#   OLoRA and LoRA-GA all begin as the base by taking their first update off the base's weights; PEFT repeats that when
#   it loads PiSSA and OLoRA.
# Behaviour: LoRA-GA's first update comes from gradients, which are gone when the adapter is loaded. PEFT then takes
#   nothing off the base (its source says that the weights are overwritten anyway), so that the first update is counted
#   on top: the logits are off by most of their size. No error, no warning. Only save_pretrained with
#   path_initial_model_for_weight_conversion, an optional argument, keeps it; Trainer, which saves the checkpoints and
#   the final model, does not pass it.
# Output seen (largest difference of logits, their size):
#   LoRA    at the start 0.0000 from the base, after a reload 0.0000 of 3.51
#   PiSSA   at the start 0.0000 from the base, after a reload 0.0000 of 3.51
#   OLoRA   at the start 0.0000 from the base, after a reload 0.0000 of 3.51
#   LoRA-GA at the start 0.0000 from the base, after a reload 2.8886 of 3.51, warnings about it 0
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
from peft import LoraConfig, LoraGAConfig, PeftModel, get_peft_model, preprocess_loraga

ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def base():
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                              num_attention_heads=4, initializer_range=0.2)).eval()


def difference(model, logits):
    with torch.no_grad():
        return (model(ids).logits - logits).abs().max().item()


with torch.no_grad():
    logits = base()(ids).logits
same = True
for name, kind in (("LoRA", True), ("PiSSA", "pissa"), ("OLoRA", "olora"), ("LoRA-GA", "lora_ga")):
    gradients = dict(lora_ga_config=LoraGAConfig()) if kind == "lora_ga" else {}
    config = LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=kind, **gradients)
    model = base()
    if kind == "lora_ga":
        preprocess_loraga(model, config, lambda model=model: model(ids, labels=ids).loss.backward())
    model = get_peft_model(model, config).eval()
    start = difference(model, logits)
    with torch.no_grad():
        saved = model(ids).logits
    model.save_pretrained(name)
    fresh = base()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reloaded = PeftModel.from_pretrained(fresh, name).eval()
    after = difference(reloaded, saved)
    warned = [warning for warning in caught if "lora" in str(warning.message).lower()]
    counted = f", warnings about it {len(warned)}" if kind == "lora_ga" else ""
    print(f"{name:7s} at the start {start:.4f} from the base, after a reload {after:.4f} of "
          f"{saved.abs().max().item():.2f}{counted}")
    same &= start < 1e-3 and ((after > 0.1 and not warned) if kind == "lora_ga" else after < 1e-3)
sys.exit(None if same else "changed: LoRA-GA reloads right or warns, or another one reloads wrong")
PY
