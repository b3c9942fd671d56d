"""Time a training step of N adapters in one batch (factors stacked) beside N steps of single adapters, as in runs now.

python -m benchmarks.together.stacked_adapters [--shapes tiny minilm] [--together 1 2 4 8] [--rounds 9]
  [--save FILE.csv]

All adapters of a stack have one base, rank and order of rows, and each has its own learning rate. Times are processor
time of one thread. docs/adr says what training them so would take.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel

from benchmarks.interleaved import Step, measure_steps
from benchmarks.step_cost import show
from benchmarks.step_subjects import MINILM, WITHOUT_DROPOUT, build
from lorta.config.places import PACKAGE
from lorta.geometry import Geometry

RANK, LABELS = 8, 2
TINY = PACKAGE / "embedded/weights/tiny"
SHAPES: Mapping[str, tuple[Callable[[], PreTrainedModel], tuple[int, int]]] = {  # rows of each adapter, tokens
    "tiny": (lambda: RobertaModel(RobertaConfig.from_pretrained(TINY)), (16, 32)),
    "minilm": (lambda: BertModel(BertConfig(**MINILM, **WITHOUT_DROPOUT)), (16, 64)),
}


class Stacked(nn.Module):
    """A frozen linear layer whose input is N adapters' rows, one after another, and their N updates."""

    def __init__(self, base: nn.Linear, update: Callable[[Tensor], Tensor], number: int) -> None:
        super().__init__()
        self.base, self.update, self.number = base, update, number

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for (N * rows, tokens, inputs)."""
        rows = x.reshape(self.number, -1, x.shape[-1])
        return self.base(x) + self.update(rows).reshape(*x.shape[:-1], -1)


def stack_lora(
    targets: Mapping[str, nn.Linear], geometry: Geometry, number: int
) -> tuple[list[Tensor], dict[str, Any]]:
    """Return N LoRA adapters' factors, and for each layer its update: (N, rows, in) -> (N, rows, out)."""
    factors: list[Tensor] = []
    updates: dict[str, Any] = {}
    for path, layer in targets.items():
        down = _factor(number, layer.in_features, RANK)
        up = torch.zeros(number, RANK, layer.out_features, requires_grad=True)
        factors += [down, up]
        updates[path] = lambda x, down=down, up=up: x @ down @ up
    return factors, updates


def stack_lorta(
    targets: Mapping[str, nn.Linear], geometry: Geometry, number: int
) -> tuple[list[Tensor], dict[str, Any]]:
    """Return N LoRTA adapters' five factors, and a function for each layer, as `stack_lora`."""
    a, b = _factor(number, geometry.hidden, RANK), _factor(number, geometry.head_dim, RANK)
    heads, layers = _factor(number, geometry.heads, RANK), _factor(number, geometry.layers, RANK)
    matrices = torch.zeros(number, 4, RANK, requires_grad=True)

    def update(x: Tensor, layer: int, matrix: int) -> Tensor:
        diagonal = heads * (layers[:, layer] * matrices[:, matrix]).unsqueeze(1)  # (N, heads, rank)
        wide = (diagonal.unsqueeze(2) * b.unsqueeze(1)).flatten(1, 2)  # (N, heads * head_dim, rank)
        return x @ a @ wide.mT

    places = {path: place for path in targets if (place := geometry.locate(path))}
    updates = {
        path: partial(update, layer=layer, matrix="qkvo".index(role)) for path, (layer, (role,)) in places.items()
    }
    return [a, b, heads, layers, matrices], updates


def _factor(*shape: int) -> Tensor:
    """Return the same random numbers for each adapter."""
    return (0.1 * torch.randn(1, *shape[1:])).expand(*shape).clone().requires_grad_()


STACKS = {"lora": stack_lora, "lorta": stack_lorta}


class Adam:
    """Adam with a learning rate for each adapter of stacked tensors."""

    def __init__(self, tensors: list[Tensor], rates: Tensor) -> None:
        self.moments = [(tensor, torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in tensors]
        self.rates, self.steps = rates, 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the tensors, and forget their gradients."""
        self.steps += 1
        for tensor, mean, square in self.moments:
            assert tensor.grad is not None
            mean.lerp_(tensor.grad, 0.1)
            square.mul_(0.999).addcmul_(tensor.grad, tensor.grad, value=0.001)
            spread = (square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
            rate = self.rates.view(-1, *[1] * (tensor.dim() - 1)) / (1 - 0.9**self.steps)
            tensor.sub_(rate * mean / spread)
            tensor.grad = None


def stacked_step(method: str, shape: str, number: int, rates: Tensor | None = None) -> tuple[Step, list[Tensor]]:
    """Return one step of N adapters in one batch, and the tensors it trains: forward, backward, Adam."""
    torch.manual_seed(0)
    make, (rows, tokens) = SHAPES[shape]
    model = make().requires_grad_(False).train()
    geometry = Geometry.from_config(model.config.to_dict())
    targets = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and (place := geometry.locate(path))
        and place[1] in [(role,) for role in "qkvo"]
    }
    factors, updates = STACKS[method](targets, geometry, number)
    for path, layer in targets.items():
        model.set_submodule(path, Stacked(layer, updates[path], number))
    head = _factor(number, geometry.hidden, LABELS)
    ids, labels = _rows(rows, tokens)
    ids, labels = ids.repeat(number, 1), labels.repeat(number)
    optimizer = Adam([*factors, head], torch.linspace(1e-4, 1e-3, number) if rates is None else rates)

    def step() -> None:
        pooled = model(input_ids=ids).last_hidden_state.mean(1).reshape(number, rows, -1)
        logits = (pooled @ head).flatten(0, 1)
        (nn.functional.cross_entropy(logits, labels) * number).backward()  # the sum of the adapters' means
        optimizer.step()

    return step, [*factors, head]


def single_step(method: str, shape: str) -> Step:
    """Return one step of one adapter with the packages' own layers, as a run does it."""
    torch.manual_seed(0)
    make, (rows, tokens) = SHAPES[shape]
    base = make()
    width = Geometry.from_config(base.config.to_dict()).hidden
    model, head = build(method, base, RANK).train(), _factor(1, width, LABELS)
    optimizer = torch.optim.AdamW([head, *(weight for weight in model.parameters() if weight.requires_grad)])
    ids, labels = _rows(rows, tokens)

    def step() -> None:
        logits = model(input_ids=ids).last_hidden_state.mean(1) @ head[0]
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _rows(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randint(5, 500, (rows, tokens)), torch.randint(0, LABELS, (rows,))


def difference(method: str, shape: str, number: int, steps: int = 5) -> float:
    """Return how far the last adapter of a stack is from the same one alone after some steps, relative to its moves.

    Zero where the stack changes no bit.
    """
    rates = torch.linspace(1e-4, 1e-3, number)
    together, alone = stacked_step(method, shape, number, rates), stacked_step(method, shape, 1, rates[-1:])
    before = [tensor[0].detach().clone() for tensor in alone[1]]
    for _ in range(steps):
        together[0]()
        alone[0]()
    pairs = zip(together[1], alone[1], before, strict=True)
    far = [((a[-1] - b[0]).abs().max() / (b[0] - c).abs().max()).item() for a, b, c in pairs]
    return max(far)


def measure(method: str, shape: str, together: list[int], rounds: int) -> list[dict[str, object]]:
    """Return a row for each number of adapters: seconds per adapter's step, and how much faster than single runs."""
    steps: dict[str, Step] = {f"{number}": stacked_step(method, shape, number)[0] for number in together}
    costs = measure_steps({"single": single_step(method, shape), **steps}, rounds, clock=time.process_time)
    return [
        {
            "method": method,
            "shape": shape,
            "rank": RANK,
            "together": number,
            "single_ms": round(1000 * costs["single"].median_s, 2),
            "stacked_ms_each": round(1000 * costs[f"{number}"].median_s / number, 2),
            "times_faster": round(number * costs["single"].ratio(costs[f"{number}"]), 2),
            "stack_peak_mib": round(costs[f"{number}"].peak_bytes / 2**20, 1),
            "difference": float(f"{difference(method, shape, number):.1e}"),
        }
        for number in together
    ]


def main() -> None:
    """Measure both methods; print a row for each number of adapters, and save them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["tiny"], choices=list(SHAPES))
    parser.add_argument("--together", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for shape in arguments.shapes:
        for method in STACKS:
            rows = measure(method, shape, arguments.together, arguments.rounds)
            show(rows, arguments.save)


if __name__ == "__main__":
    main()
