"""Print how long SmolLM2 takes to load from its GGUF file and from the cache, interleaved, in one process.

python -m benchmarks.gguf_loading [--rounds 5] [--model smollm2_135m]

Model and tokenizer, float32, as a run loads them; the first use of the cache, which makes it, is not counted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorta.config.places import CONF
from lorta.models.backbone import load_causal_lm
from lorta.models.locate import find_model, find_place
from lorta.planning.planner import make_plan
from lorta.system.quiet import be_quiet


def load_gguf(folder: str, name: str) -> None:
    """Load model and tokenizer from a GGUF file, as transformers does."""
    AutoTokenizer.from_pretrained(folder, gguf_file=name)
    AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measure both ways of loading in turn, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="smollm2_135m")
    options = parser.parse_args()
    be_quiet()
    torch.set_num_threads(1)
    plan = make_plan([f"model={options.model}", "task=instruct", "data.source=embedded"], False, CONF)
    if plan.problems:
        parser.error("\n".join(plan.problems))
    settings = plan.specs[0].settings.model
    file = find_place(settings.path or "")
    assert file is not None
    times: dict[str, list[float]] = {"gguf": [], "cache": []}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file)  # transformers also reads what lies beside the file
        for _ in range(options.rounds):
            times["gguf"].append(seconds(lambda: load_gguf(folder, file.name)))
            times["cache"].append(seconds(lambda: load_causal_lm(find_model(settings), "fp32")))
    for name, of in times.items():
        print(f"{name}: median {median(of):.2f} s ({min(of):.2f} to {max(of):.2f})")
    print(f"cache / gguf: {median(times['cache']) / median(times['gguf']):.3f}")


if __name__ == "__main__":
    main()
