"""Peak memory of a training step on a CPU: what stands is counted once, what comes and goes at its highest."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lorta.training.cpu_memory import MEASURED_STEP, PeakMemory, most_allocated, standing_bytes

MEBIBYTE = 2**20
FLOATS = MEBIBYTE // 4


def recorded(work) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    return most_allocated(found)


def test_what_is_alive_at_once_adds_up_and_what_follows_does_not():
    def together():
        kept = [torch.empty(FLOATS) for _ in range(3)]
        del kept

    def in_turn():
        for _ in range(3):
            torch.empty(FLOATS)

    assert recorded(together) == 3 * MEBIBYTE
    assert recorded(in_turn) == MEBIBYTE


def test_shared_memory_stands_once_and_the_optimizer_state_stands_too():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters())
    assert standing_bytes(model, optimizer) == 8 * 8 * 4
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert standing_bytes(model, optimizer) == 4 * (8 * 8 * 4) + 4  # weight, gradient, two moments; the step count


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator knows its own peak")
@pytest.mark.parametrize("steps", [1, 3])
def test_one_step_is_measured_and_needs_the_second(steps):
    model = nn.Linear(512, 512, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    memory = PeakMemory()
    for _ in range(steps):
        memory.on_step_begin(None, SimpleNamespace(), None, model=model, optimizer=optimizer)
        model(torch.ones(4, 512)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        memory.on_step_end(None, SimpleNamespace(), None)
    if steps <= MEASURED_STEP:
        assert memory.peak_bytes is None
    else:  # weight and gradient of a MiB each, and small activations
        assert 2 * MEBIBYTE <= memory.peak_bytes < 2.2 * MEBIBYTE


def test_a_step_that_failed_leaves_no_profiler_behind():
    model = nn.Linear(8, 8)
    optimizer, memory = torch.optim.AdamW(model.parameters()), PeakMemory()
    for _ in range(MEASURED_STEP + 1):
        memory.on_step_begin(None, None, None, model=model, optimizer=optimizer)
    assert memory.stop() is not None
    assert memory.stop() is None
    assert recorded(lambda: torch.empty(FLOATS)) == MEBIBYTE  # another one can be started
