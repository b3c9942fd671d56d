#!/usr/bin/env bash
# A LoraConfig with "all-linear" used for a second, deeper model adapts only as many layers as the first one had.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: a configuration is a recipe. With target_modules="all-linear", documented as all linear layers but the
#   output, each model made from it is adapted in all layers, as it is with target_modules=["q_proj"].
# Behaviour: get_peft_model writes into the configuration that it is given. "all-linear" is replaced by the full paths
#   of the first model's modules. On a model with more layers these paths match its first layers, and the others are
#   left out without a word; the saved adapter_config.json then says so, too. With no target_modules at all, the first
#   model's default names stay in it, and a model of another family is refused for lacking them.
# Output seen (adapted layers of a model of 2 layers, then of one of 6 layers):
#   target_modules=["q_proj"], one configuration: 0 1, then 0 1 2 3 4 5
#   target_modules="all-linear", a new one each:  0 1, then 0 1 2 3 4 5
#   target_modules="all-linear", one for both:    0 1, then 0 1
#   no target_modules, first RoBERTa, then Llama: NoMatchingPeftModuleError
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
from peft import LoraConfig, get_peft_model

sizes = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_attention_heads=4)


def llama(layers):
    return hf.LlamaForCausalLM(hf.LlamaConfig(num_hidden_layers=layers, **sizes))


def adapted(layers, config):
    names = [name for name, _ in get_peft_model(llama(layers), config).named_parameters() if "lora_A" in name]
    return " ".join(sorted({name.split(".layers.")[1].split(".")[0] for name in names}))


def other_family():
    config = LoraConfig(task_type="SEQ_CLS")
    get_peft_model(hf.RobertaForSequenceClassification(hf.RobertaConfig(num_hidden_layers=2, **sizes)), config)
    try:
        get_peft_model(hf.LlamaForSequenceClassification(hf.LlamaConfig(num_hidden_layers=2, **sizes)), config)
    except Exception as error:
        return type(error).__name__
    return "works"


named, linear = LoraConfig(target_modules=["q_proj"]), LoraConfig(target_modules="all-linear")
seen = {
    'target_modules=["q_proj"], one configuration:': f"{adapted(2, named)}, then {adapted(6, named)}",
    'target_modules="all-linear", a new one each:': ", then ".join(
        adapted(layers, LoraConfig(target_modules="all-linear")) for layers in (2, 6)),
    'target_modules="all-linear", one for both:': f"{adapted(2, linear)}, then {adapted(6, linear)}",
    "no target_modules, first RoBERTa, then Llama:": other_family(),
}
for title, result in seen.items():
    print(f"{title:45s} {result}")
expected = ["0 1, then 0 1 2 3 4 5", "0 1, then 0 1 2 3 4 5", "0 1, then 0 1", "NoMatchingPeftModuleError"]
sys.exit(None if list(seen.values()) == expected else "changed: the configuration keeps something else")
PY
