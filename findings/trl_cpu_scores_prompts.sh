#!/usr/bin/env bash
# TRL's fused language head, said to project labelled positions only, takes prompts and padding too on a CPU.
#
# Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, trl 1.16.0, datasets 5.2.0.
# Expected: trl.trainer.utils.add_fused_lm_head, which SFTTrainer and DPOTrainer use by default, says that it projects
#   "only the positions whose next-token label is not `-100`".
# Behaviour: so it is only with Triton. On a CPU every position is projected and goes through a softmax over the whole
#   vocabulary in float32, and both again in the backward pass. Loss and gradients are right; what has no label is
#   computed and thrown away. A prompt's tokens then cost as much as an answer's: on SmolLM2-135M, with a
#   vocabulary of 49,152, that is more than half of a training step on chats of which the answers alone are learnt.
# Output seen (the seconds are one machine's):
#   one step of SFTTrainer on 8 rows of 64 tokens, 2 of each with a label: 16 labels, 504 positions
#   positions that are projected: 504 forward, 504 backward, 504 backward to the hidden states
#   positions that go through exp() in float32: 504 forward, 504 backward
#   the same log-probabilities from the labelled positions alone: True
#   forward and backward of the head, vocabulary 32,768: 1.39 s, from the labelled positions alone 0.10 s
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
  dill==0.4.1 multiprocess==0.70.19 xxhash==4.1.0 accelerate==1.15.0 psutil==7.2.2 \
  transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 \
  packaging==26.3 PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 \
  shellingham==1.5.4 rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 \
  pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 \
  httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import sys
import time

import datasets
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import add_fused_lm_head

datasets.disable_progress_bars()
WIDTH = 48
words = {word: place for place, word in enumerate(["<pad>", "<unk>", "</s>", *(f"w{n}" for n in range(197))])}
VOCABULARY = len(words)
backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def model_of(vocabulary):
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=64,
                                              num_hidden_layers=1, num_attention_heads=4, pad_token_id=0))


class Head(TorchDispatchMode):
    """Notes how many positions are multiplied by the head, and how many go through exp() over the vocabulary."""

    def __init__(self):
        super().__init__()
        self.products, self.exponentials = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition(".")[0].removesuffix("_")
        shapes = [tuple(part.shape) for part in args if isinstance(part, torch.Tensor)]
        of_product = name in ("aten::mm", "aten::addmm")
        if of_product and {*shapes[-2][1:], *shapes[-1]} == {WIDTH, VOCABULARY}:
            self.products.append(shapes[-2][0])
        if name in ("aten::exp", "aten::_log_softmax") and shapes[0][-1:] == (VOCABULARY,):
            self.exponentials.append(args[0].numel() // VOCABULARY if args[0].dtype == torch.float32 else 0)
        return func(*args, **(kwargs or {}))


prompt, answer = " ".join(f"w{n}" for n in range(62)), " w150"
options = SFTConfig("out", max_steps=1, per_device_train_batch_size=8, learning_rate=0.0, report_to=[], use_cpu=True,
                    bf16=False, gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", logging_steps=9)
with contextlib.redirect_stdout(io.StringIO()):
    trainer = SFTTrainer(model_of(VOCABULARY), args=options, processing_class=tokenizer,
                         train_dataset=datasets.Dataset.from_list([dict(prompt=prompt, completion=answer)] * 8))
    batch = next(iter(trainer.get_train_dataloader()))
    with Head() as head:
        trainer.train()
labels = int((batch["labels"][:, 1:] != -100).sum())
rows, length = batch["input_ids"].shape
positions = rows * (length - 1)
print(f"one step of SFTTrainer on {rows} rows of {length} tokens, {labels // rows} of each with a label: "
      f"{labels} labels, {positions} positions")
print("positions that are projected: {} forward, {} backward, {} backward to the hidden states".format(
    *(head.products + [0] * 3)[:3]))
print("positions that go through exp() in float32: {} forward, {} backward".format(
    *(max(part, default=0) for part in (head.exponentials[:1], head.exponentials[1:]))))

large = model_of(32768)
plain = model_of(32768)
add_fused_lm_head(large)
ids = torch.arange(8 * 64).view(8, 64)
targets = ids.clone()
targets[:, :-2] = -100
mask = targets[:, 1:] != -100


def theirs():
    return large(input_ids=ids, labels=targets, fused_lm_head=True).log_probs[mask]


def labelled():
    hidden = plain.model(input_ids=ids).last_hidden_state[:, :-1][mask]
    return plain.lm_head(hidden).log_softmax(-1).gather(1, targets[:, 1:][mask][:, None])[:, 0]


def seconds(step):
    step().sum().backward()
    begin = time.perf_counter()
    step().sum().backward()
    return time.perf_counter() - begin


equal = torch.allclose(theirs(), labelled(), atol=1e-5)
print(f"the same log-probabilities from the labelled positions alone: {equal}")
print(f"forward and backward of the head, vocabulary 32,768: {seconds(theirs):.2f} s, "
      f"from the labelled positions alone {seconds(labelled):.2f} s")
every = len(head.products) >= 3 and min(head.products[:3]) == positions > labels
every = every and all(number == positions for number in head.exponentials) and len(head.exponentials) >= 2
sys.exit(None if every and equal else "changed: positions without a label are left out, or the answer is another one")
PY
