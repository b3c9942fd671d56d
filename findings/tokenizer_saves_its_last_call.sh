#!/usr/bin/env bash
# A saved tokenizer keeps the truncation and padding of its last call, and cuts other programs' texts to that.
#
# Versions: Python 3.11, transformers 5.23.0, tokenizers 0.23.3. No torch.
# Expected: a call's `truncation`, `max_length` and `padding` are that call's matter. save_pretrained is documented to
#   save the tokenizer so that it can be loaded again, and should write the same file before and after a call.
# Behaviour: the call sets truncation and padding on the Rust object, where they stay, and tokenizer.json stores them.
#   AutoTokenizer sets its own at each call, so that nobody sees it; but tokenizers.Tokenizer.from_file, as used by
#   servers and other libraries, cuts each text to the last call's length, and pads to it.
# Output seen (text: a b c d e f; the call before saving had max_length=2):
#   saved before the call: tokenizers reads a b c d e f
#   saved after the call:  tokenizers reads a b
#   saved after the call:  AutoTokenizer reads a b c d e f
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install --no-deps transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 \
  hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 \
  annotated-doc==0.0.7 shellingham==1.5.4 rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 \
  click==8.5.1 pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 \
  httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5 \
  filelock==4.2.11 fsspec==2026.9.0 typing_extensions==4.16.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

words = {word: i for i, word in enumerate("<pad> <unk> a b c d e f".split())}
backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
text = "a b c d e f"
tokenizer.save_pretrained("before")
tokenizer(text, truncation=True, max_length=2, padding="max_length")
tokenizer.save_pretrained("after")
seen = [
    " ".join(Tokenizer.from_file("before/tokenizer.json").encode(text).tokens),
    " ".join(Tokenizer.from_file("after/tokenizer.json").encode(text).tokens),
    " ".join(hf.AutoTokenizer.from_pretrained("after").tokenize(text)),
]
print("saved before the call: tokenizers reads", seen[0])
print("saved after the call:  tokenizers reads", seen[1])
print("saved after the call:  AutoTokenizer reads", seen[2])
sys.exit(None if seen == [text, "a b", text] else "changed: another state is saved")
PY
