"""Greedy answers to the first held-out prompts, for a reader to look at."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.supervised import IGNORED
from lorta.config.settings import TrainerSettings
from lorta.models.backbone import Backbone
from lorta.records.store import write_atomically


@torch.no_grad()
def write_answers(
    model: nn.Module, backbone: Backbone, rows: Any, settings: TrainerSettings, max_new_tokens: int, file: Path
) -> None:
    """Write idx, prompt, reference and the model's greedy answer of each row, one JSON object a line.

    Prompts are answered one by one, so that none is padded; special tokens are left out of the texts.
    """
    model.eval()
    tokenizer: Any = backbone.tokenizer
    device = next(model.parameters()).device
    lines: list[str] = []
    for idx, ids, labels in zip(rows["idx"][:], rows["input_ids"][:], rows["labels"][:], strict=True):
        begin = sum(label == IGNORED for label in labels)
        prompt = torch.tensor([ids[:begin]], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
            generated: Any = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,  # what is learnt; a checkpoint's own settings may have another
            )
        texts = [tokenizer.decode(part, skip_special_tokens=True) for part in (prompt[0], generated[0][begin:])]
        reference = tokenizer.decode(ids[begin:], skip_special_tokens=True)
        row = {"idx": idx, "prompt": texts[0], "reference": reference, "answer": texts[1]}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(file, "".join(lines))
