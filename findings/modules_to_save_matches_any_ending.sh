#!/usr/bin/env bash
# PEFT's modules_to_save takes "norm" for every name that ends so, target_modules takes it for whole names only.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: both options take names of modules by one rule. The documentation of LoraConfig says that `target_modules`
#   are whole names or the ends of names, and that `modules_to_save` is a list of modules.
# Behaviour: `target_modules` compares whole parts of a path, so that "norm" is Llama's last norm alone and "proj" is
#   nothing. `modules_to_save` compares the end of the string: "norm" also is input_layernorm and
#   post_attention_layernorm, here 5 modules in place of 1. With task_type="SEQ_CLS", where PEFT adds "classifier" by
#   itself, DistilBERT's `pre_classifier` is trained and saved, too, and "all-linear" fails on it.
# Output seen:
#   LN tuning, target_modules=["norm"]: 1 module
#   LoRA, modules_to_save=["norm"]: 5 modules
#   LoRA, target_modules=["proj"]: NoMatchingPeftModuleError
#   DistilBERT, SEQ_CLS, trained besides LoRA: classifier, pre_classifier
#   DistilBERT, SEQ_CLS, target_modules="all-linear": TypeError
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

import transformers as hf
from peft import LNTuningConfig, LoraConfig, get_peft_model


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                              num_attention_heads=4))


def distilbert():
    return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(vocab_size=99, dim=32, hidden_dim=48, n_layers=2,
                                                                      n_heads=4))


def trained(model):
    paths = (name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad)
    return sorted({path.split(".modules_to_save")[0].split(".ln_tuning")[0] for path in paths if "lora" not in path})


def count(modules):
    return f"{len(modules)} module{'s' if len(modules) > 1 else ''}"


def failure(build, config):
    try:
        get_peft_model(build(), config)
    except Exception as error:
        return type(error).__name__
    return "no error"


classes = dict(task_type="SEQ_CLS")
lines = [
    'LN tuning, target_modules=["norm"]: ' + count(trained(get_peft_model(llama(), LNTuningConfig(
        target_modules=["norm"])))),
    'LoRA, modules_to_save=["norm"]: ' + count(trained(get_peft_model(llama(), LoraConfig(
        target_modules=["q_proj"], modules_to_save=["norm"])))),
    'LoRA, target_modules=["proj"]: ' + failure(llama, LoraConfig(target_modules=["proj"])),
    "DistilBERT, SEQ_CLS, trained besides LoRA: " + ", ".join(trained(get_peft_model(distilbert(), LoraConfig(
        target_modules=["q_lin"], **classes)))),
    'DistilBERT, SEQ_CLS, target_modules="all-linear": ' + failure(distilbert, LoraConfig(
        target_modules="all-linear", **classes)),
]
print("\n".join(lines))
ends = ["1 module", "5 modules", "NoMatchingPeftModuleError", "classifier, pre_classifier", "TypeError"]
same = all(line.endswith(": " + end) for line, end in zip(lines, ends, strict=True))
sys.exit(None if same else "changed: the two options match otherwise")
PY
