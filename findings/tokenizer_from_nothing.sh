#!/usr/bin/env bash
# AutoTokenizer loads a folder without any tokenizer file, and turns every word into [UNK].
#
# Versions: Python 3.11, transformers 5.23.0, tokenizers 0.23.3. No torch.
# Expected: an OSError about missing files. The documentation says that from_pretrained takes a folder that contains the
#   vocabulary files which the tokenizer needs, as save_pretrained of a tokenizer writes them.
# Behaviour: for a folder with BERT's or RoBERTa's config.json alone, as `model.save_pretrained` leaves it, transformers
#   5 builds a fast tokenizer from the class's special tokens. No error, no warning: every word is unknown, or vanishes,
#   and a training on such rows runs to its end. For Llama, whose class needs a sentencepiece model, ValueError.
# Output seen (the sentence is: the cat sat):
#   BERT    BertTokenizer, 5 tokens in its vocabulary: [CLS] [UNK] [UNK] [UNK] [SEP]
#   RoBERTa RobertaTokenizer, 5 tokens in its vocabulary: <s> </s>
#   GPT-2   GPT2Tokenizer, 1 tokens in its vocabulary:
#   Llama   ValueError
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

hf.logging.set_verbosity_error()
configs = {"BERT": hf.BertConfig(), "RoBERTa": hf.RobertaConfig(), "GPT-2": hf.GPT2Config(), "Llama": hf.LlamaConfig()}
seen = {}
for name, config in configs.items():
    config.save_pretrained(name)
    try:
        tokenizer = hf.AutoTokenizer.from_pretrained(name)
    except Exception as error:
        seen[name] = type(error).__name__
    else:
        tokens = " ".join(tokenizer.convert_ids_to_tokens(tokenizer("the cat sat").input_ids))
        seen[name] = f"{type(tokenizer).__name__}, {len(tokenizer)} tokens in its vocabulary: {tokens}"
    print(f"{name:7s} {seen[name]}")
same = "5 tokens in its vocabulary: [CLS] [UNK] [UNK] [UNK] [SEP]" in seen["BERT"]
same &= "5 tokens in its vocabulary: <s> </s>" in seen["RoBERTa"] and "1 tokens in its vocabulary" in seen["GPT-2"]
sys.exit(None if same and seen["Llama"] == "ValueError" else "changed: a missing tokenizer is treated otherwise")
PY
