"""Run by a test in a new process: load every saved adapter of a folder and write its logits beside it."""

import sys
from pathlib import Path

import torch

from tests.contract.backbones import adapter, backbone, logits, task_type

if __name__ == "__main__":
    folder, label = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        name, architecture = entry.name.rsplit("-", 1)
        model = adapter(name).load(backbone(architecture), task_type(architecture), entry)
        torch.save(logits(model), folder / f"{entry.name}.{label}.pt")
