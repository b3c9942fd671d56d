"""Print what it costs to keep many adapters beside one model: bytes on disk, time to load one, time to swap.

python scripts/measure_swapping.py [ADAPTERS]

LoRTA and PEFT's LoRA of the same rank, on q, k, v and o of a BERT of MiniLM's size with random weights. A swap is
`set_adapter(name, inference_mode=True)`. Times are of the processor, with one thread: other processes do not count.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from cost_subjects import MINILM
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import BertConfig, BertModel
from transformers.utils import logging

from lorta.tuner import LortaConfig

TARGETS = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
RANK = 8
METHODS: dict[str, type[PeftConfig]] = {"LoRTA": LortaConfig, "LoRA": LoraConfig}


def measure(config: PeftConfig, adapters: int, folder: Path) -> tuple[int, int, list[float], list[float]]:
    """Return (parameters, bytes of an adapter's folder, seconds of each load, seconds of each swap)."""
    model = get_peft_model(BertModel(BertConfig(**MINILM)), config)
    parameters = sum(value.numel() for value in model.parameters() if value.requires_grad)
    model.save_pretrained(str(folder / "0"))
    size = sum(file.stat().st_size for file in (folder / "0").glob("adapter_model*"))
    for number in range(1, adapters):
        shutil.copytree(folder / "0", folder / str(number))
    model = PeftModel.from_pretrained(BertModel(BertConfig(**MINILM)), folder / "0", adapter_name="0").eval()
    loads, swaps = [], []
    for number in range(1, adapters):
        begun = time.process_time()
        model.load_adapter(str(folder / str(number)), adapter_name=str(number))
        loads.append(time.process_time() - begun)
    for number in range(adapters):
        begun = time.process_time()
        model.set_adapter(str(number), inference_mode=True)
        swaps.append(time.process_time() - begun)
    return parameters, size, loads, swaps


def main() -> None:
    """Measure both methods and print a line for each."""
    adapters = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"{adapters} adapters of rank {RANK}; medians, milliseconds of processor time")
    for name, kind in METHODS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = kind(r=RANK, target_modules=TARGETS)  # pyright: ignore[reportCallIssue]
            parameters, size, loads, swaps = measure(config, adapters, Path(folder))
        first, last, swap = (1000 * statistics.median(times) for times in (loads[:10], loads[-10:], swaps))
        print(
            f"{name:6s} {parameters:8,d} parameters {size:9,d} bytes   load {1000 * statistics.median(loads):7.1f} "
            f"(first ten {first:.1f}, last ten {last:.1f})   swap {swap:6.2f}"
        )


if __name__ == "__main__":
    main()
