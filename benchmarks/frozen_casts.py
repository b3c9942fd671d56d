"""Time LoRA under bf16 autocast with frozen weights cast at every step, and cast once (lorta.models.frozen_casts).

python -m benchmarks.frozen_casts [--shapes minilm smollm2] [--rounds 9]

A step is forward, backward and AdamW on the shape's batch. A token is a forward pass of one token in each of four rows
without gradients, as generation does for each that it writes. Processor time, one thread, interleaved, medians.
"""

import argparse
import time

import torch

from benchmarks.interleaved import Step, measure_steps
from benchmarks.step_subjects import HELD, SHAPES, build
from lorta.models.frozen_casts import frozen_casts

ROWS = 4


def subjects(shape: str) -> dict[str, Step]:
    """Return a step and a token, each with casts that autocast makes and with casts that are made once."""
    torch.manual_seed(0)
    model_class, config, (rows, tokens) = SHAPES[shape]
    at_each, once = (build("lora", model_class(config), 8).train() for _ in range(2))
    HELD.enter_context(frozen_casts(once, "bf16"))
    both = {"at each step": at_each, "once": once}
    return {
        f"{kind}, {name}": make(model, (rows, tokens, config.hidden_size))
        for name, model in both.items()
        for kind, make in (("step", training), ("token", token))
    }


def training(model: torch.nn.Module, shape: tuple[int, int, int]) -> Step:
    """Return one training step."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    inputs = torch.randn(shape)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model(inputs_embeds=inputs).last_hidden_state
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def token(model: torch.nn.Module, shape: tuple[int, int, int]) -> Step:
    """Return one token of four rows."""
    inputs = torch.randn(ROWS, 1, shape[-1])

    def step() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model(inputs_embeds=inputs)

    return step


def main() -> None:
    """Print a row for each shape and kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["minilm", "smollm2"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for shape in options.shapes:
        costs = measure_steps(subjects(shape), options.rounds, clock=time.process_time)
        for kind in ("step", "token"):
            each, once = costs[f"{kind}, at each step"], costs[f"{kind}, once"]
            print(
                f"{shape} {kind}: cast at each step {1000 * each.median_s:.0f} ms, {each.peak_bytes / 2**20:.0f} MiB; "
                f"once {1000 * once.median_s:.0f} ms, {once.peak_bytes / 2**20:.0f} MiB: {once.ratio(each):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
