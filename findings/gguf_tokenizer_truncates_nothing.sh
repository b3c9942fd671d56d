#!/usr/bin/env bash
# A tokenizer read from a GGUF file cuts nothing with truncation=True, although the file says how long texts may be.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, gguf 0.19.0.
# Expected: the file has `llama.context_length`, which the model's configuration takes over (max_position_embeddings);
#   truncation=True cuts to the model's longest input, as it does with the tokenizers of ordinary checkpoints.
# Behaviour: the tokenizer's model_max_length is 10^30, so truncation=True returns texts of any length, without a word,
#   and the model reads positions that it was never trained for. save_pretrained keeps that number.
# Output seen:
#   context_length of the file: 64
#   max_position_embeddings of the configuration: 64
#   model_max_length of the tokenizer: 1000000000000000019884624838656
#   tokens of a text of 2000 letters, with truncation=True: 2000
#   the same after model_max_length = 64: 64
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps gguf==0.19.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 \
  hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 \
  annotated-doc==0.0.7 shellingham==1.5.4 rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 \
  click==8.5.1 pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 \
  httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import string
import sys

import transformers as hf
from gguf import GGUFWriter, TokenType

tokens = ["<unk>", "<s>", "</s>", *string.ascii_letters, *string.digits, "\u0120", "th"]
writer = GGUFWriter("model.gguf", "llama")
writer.add_vocab_size(len(tokens))
writer.add_context_length(64)
writer.add_embedding_length(32)
writer.add_block_count(1)
writer.add_feed_forward_length(48)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_dimension_count(8)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(tokens)
writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
writer.add_token_merges(["t h"])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_add_bos_token(False)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

config = hf.AutoConfig.from_pretrained(".", gguf_file="model.gguf")
tokenizer = hf.AutoTokenizer.from_pretrained(".", gguf_file="model.gguf")
text, longest = "a" * 2000, tokenizer.model_max_length
cut = len(tokenizer(text, truncation=True)["input_ids"])
tokenizer.model_max_length = 64
right = len(tokenizer(text, truncation=True)["input_ids"])
print(
    "context_length of the file: 64",
    f"max_position_embeddings of the configuration: {config.max_position_embeddings}",
    f"model_max_length of the tokenizer: {longest}",
    f"tokens of a text of 2000 letters, with truncation=True: {cut}",
    f"the same after model_max_length = 64: {right}",
    sep="\n",
)
same = config.max_position_embeddings == 64 and longest > 10**20 and (cut, right) == (2000, 64)
sys.exit(None if same else "changed: the tokenizer knows how long texts may be")
PY
