#!/usr/bin/env bash
# PEFT's save_pretrained asks the hub for the base's `main`, and what it answers decides what the file holds.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, peft 0.21.2, huggingface_hub 2.4.0.
# Expected: an adapter's file depends on the adapter. `save_embedding_layers="auto"` is documented to look at the
#   configuration's target modules; and a base that was loaded at a pinned revision, which the adapter's configuration
#   names, is compared with that revision, if with anything.
# Behaviour: saving sends requests for config.json at the revision `main`, whatever was loaded. Where its vocabulary has
#   another size, as after its authors added a token, PEFT takes the embeddings for resized ones and saves them all, in
#   a file many times as large. The same run, saved before and after the authors' commit, gives two different files, and
#   each save waits for the hub.
# Output seen (a hub on loopback; the base is loaded at its first commit, vocabulary 99):
#   main has 99 words:  asked for main, 4 tensors: lora_A lora_B
#   main has 107 words: asked for main, 6 tensors: embed_tokens lm_head lora_A lora_B
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
import hashlib
import http.server
import json
import os
import sys
import threading
from pathlib import Path

FIRST = "1" * 40
commits = {"main": "2" * 40}
files = {FIRST: {}}
asked = []


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.split("?")[0].split("/")
        commit, data = None, None
        if "resolve" in parts:
            revision, name = parts[parts.index("resolve") + 1 :]
            commit = commits.get(revision, revision)
            data = files[commit].get(name)
            asked.append(revision)
        self.send_response(200 if data else 404)
        if data:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors import safe_open

torch.manual_seed(0)
config = hf.LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
hf.LlamaForCausalLM(config).save_pretrained("first")
files[FIRST] = {path.name: path.read_bytes() for path in Path("first").iterdir()}
seen = []
for words in (99, 107):
    commits["main"] = str(words).zfill(40)
    newest = json.loads(files[FIRST]["config.json"]) | {"vocab_size": words}
    files[commits["main"]] = {"config.json": json.dumps(newest).encode()}
    base = hf.AutoModelForCausalLM.from_pretrained("lab/base", revision=FIRST)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], r=2), revision=FIRST)
    asked.clear()
    model.save_pretrained(f"adapter_{words}")
    with safe_open(f"adapter_{words}/adapter_model.safetensors", "pt") as file:
        tensors = list(file.keys())
    names = " ".join(sorted({name.removesuffix(".weight").split(".")[-1] for name in tensors}))
    asked_for = " ".join(sorted(set(asked))) or "nothing"
    title = f"main has {words} words:"
    seen.append(f"asked for {asked_for}, {len(tensors)} tensors: {names}")
    print(f"{title:19s} {seen[-1]}")
server.shutdown()
expected = ["asked for main, 4 tensors: lora_A lora_B",
            "asked for main, 6 tensors: embed_tokens lm_head lora_A lora_B"]
sys.exit(None if seen == expected else "changed: other requests, or other tensors")
PY
