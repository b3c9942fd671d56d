#!/usr/bin/env bash
# Two active C3A adapters of PEFT do not add: the second is applied to what the first returned, not to the input.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2.
# Expected: with several active adapters a layer returns base(x) + update_a(x) + update_b(x), the same as after merging
#   both, and the same in either order. The documentation of the tuners' `set_adapter` takes a list of names.
# Behaviour: C3A's loop over the active adapters overwrites its input, so the layer returns base(x) + a(x) + b(a(x)).
#   Merging adds both updates to the weight, which is right, so merging changes the answer, and so does the order of
#   the names. No other of the additive tuners tried does it.
# Output seen (largest difference from the sum of both updates; LoRA and others as a check):
#   LoRA      forward 0.0000 merged 0.0000 order of names 0.0000
#   LoKr      forward 0.0000 merged 0.0000 order of names 0.0000
#   FourierFT forward 0.0000 merged 0.0000 order of names 0.0000
#   C3A       forward 0.1661 merged 0.0000 order of names 0.1925
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
from peft import C3AConfig, FourierFTConfig, LoKrConfig, LoraConfig, get_peft_model

methods = {
    "LoRA": lambda: LoraConfig(target_modules=["q_proj"], r=4),
    "LoKr": lambda: LoKrConfig(target_modules=["q_proj"], r=4),
    "FourierFT": lambda: FourierFTConfig(target_modules=["q_proj"], n_frequency=20),
    "C3A": lambda: C3AConfig(target_modules=["q_proj"], block_size=8),
}
errors = {}
for name, config in methods.items():
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                              num_attention_heads=4))
    model = get_peft_model(base, config(), adapter_name="a")
    model.add_adapter("b", config())
    for path, weight in model.named_parameters():
        if {"a", "b"} & set(path.split(".")):
            torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(4, 32)

    def output(*names):
        model.base_model.set_adapter(list(names))
        return layer(x)

    with torch.no_grad():
        plain = layer.get_base_layer()(x)
        both = output("a") + output("b") - plain
        forward, other_order = (output(*names) for names in (("a", "b"), ("b", "a")))
        model.merge_adapter(["a", "b"])
        merged = layer(x)
    errors[name] = [(y - z).abs().max().item() for y, z in ((forward, both), (merged, both), (forward, other_order))]
    print(f"{name:9s} forward {errors[name][0]:.4f} merged {errors[name][1]:.4f} order of names {errors[name][2]:.4f}")
same = all(max(errors[name]) < 1e-3 for name in ("LoRA", "LoKr", "FourierFT"))
same &= errors["C3A"][0] > 0.01 and errors["C3A"][1] < 1e-3 and errors["C3A"][2] > 0.01
sys.exit(None if same else "changed: C3A adds up, or another method does not")
PY
