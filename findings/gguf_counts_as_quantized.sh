#!/usr/bin/env bash
# transformers refuses to save or train what it read from a GGUF file, as "quantized", even a float32 file.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2, gguf 0.19.0.
# Expected: the documentation's page on GGUF says that a checkpoint is dequantised to float32 for further training, and
#   that the model is then saved by save_pretrained, to be converted back. A float32 file was never quantised at all.
# Behaviour: the weights are plain float32 in plain Linear layers, equal to the file's. But the configuration carries a
#   `quantization_config` with quant_method "gguf", and the model a quantizer that says "not serialisable":
#   save_pretrained raises ValueError, and still does after a LoRA was merged, at the end of the work; Trainer refuses a
#   full fine-tuning as one of a purely quantised model.
# Output seen:
#   the file's types: F32
#   difference from the model that was written: 0.0
#   layers: Linear float32
#   is_quantized: True, quantization_config: gguf
#   save_pretrained: ValueError
#   save_pretrained after a merged LoRA: ValueError
#   Trainer: ValueError
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps gguf==0.19.0 peft==0.21.2 accelerate==1.15.0 psutil==7.2.2 transformers==5.23.0 \
  tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 \
  PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 shellingham==1.5.4 \
  rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 pydantic==2.14.3 \
  pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 httpcore2==2.16.2 \
  h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import torch
import transformers as hf
from gguf import GGUFReader, GGUFWriter
from peft import LoraConfig, get_peft_model

hf.logging.disable_progress_bar()
heads, layers, width = 4, 2, 32
torch.manual_seed(0)
model = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=99, hidden_size=width, intermediate_size=48, rms_norm_eps=1e-6,
                                           num_hidden_layers=layers, num_attention_heads=heads, initializer_range=0.2,
                                           max_position_embeddings=64)).eval()
names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
parts = dict(attn_q="self_attn.q_proj", attn_k="self_attn.k_proj", attn_v="self_attn.v_proj",
             attn_output="self_attn.o_proj", ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj", ffn_down="mlp.down_proj",
             attn_norm="input_layernorm", ffn_norm="post_attention_layernorm")
for i in range(layers):
    names |= {f"blk.{i}.{short}": f"model.layers.{i}.{path}" for short, path in parts.items()}

writer = GGUFWriter("model.gguf", "llama")
writer.add_vocab_size(99)
writer.add_context_length(64)
writer.add_embedding_length(width)
writer.add_block_count(layers)
writer.add_feed_forward_length(48)
writer.add_head_count(heads)
writer.add_head_count_kv(heads)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_dimension_count(width // heads)
for short, path in names.items():
    weight = model.state_dict()[f"{path}.weight"].numpy()
    if path.endswith(("q_proj", "k_proj")):  # the format stores the two halves of a rotated head interleaved
        weight = weight.reshape(heads, 2, width // heads // 2, width).swapaxes(1, 2).reshape(width, width)
    writer.add_tensor(f"{short}.weight", np.ascontiguousarray(weight, dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def read():
    return hf.AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf").eval()


def outcome(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "works"


ids = torch.tensor([[5, 6, 7, 8]])
loaded = read()
linear = loaded.model.layers[0].self_attn.q_proj
config = getattr(loaded.config, "quantization_config", None)
lines = [
    f"the file's types: {' '.join(sorted({tensor.tensor_type.name for tensor in GGUFReader('model.gguf').tensors}))}",
    f"difference from the model that was written: {(loaded(ids).logits - model(ids).logits).abs().max().item():.1f}",
    f"layers: {type(linear).__name__} {str(linear.weight.dtype).removeprefix('torch.')}",
    f"is_quantized: {getattr(loaded, 'is_quantized', False)}, "
    f"quantization_config: {getattr(getattr(config, 'quant_method', None), 'value', None)}",
    f"save_pretrained: {outcome(lambda: loaded.save_pretrained('saved'))}",
]
merged = get_peft_model(read(), LoraConfig(target_modules=["q_proj"])).merge_and_unload()
options = hf.TrainingArguments("out", report_to=[], use_cpu=True)
lines += [
    f"save_pretrained after a merged LoRA: {outcome(lambda: merged.save_pretrained('merged'))}",
    f"Trainer: {outcome(lambda: hf.Trainer(read(), options))}",
]
print("\n".join(lines))
ends = ["F32", "0.0", "Linear float32", "True, quantization_config: gguf", "ValueError", "ValueError", "ValueError"]
same = all(line.endswith(f": {end}") for line, end in zip(lines, ends, strict=True))
sys.exit(None if same else "changed: the model counts as plain, or is another one")
PY
