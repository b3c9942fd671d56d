"""Two processes with gloo on the CPU train what one process trains on both batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close
from train_in_parallel import TOKENS, adapted, base, factors_of, full, train

LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
WAYS = [
    "ddp",
    "ddp, checkpointing",
    "ddp, unused parameters looked for",
    "ddp, reentrant checkpointing, static graph",
    "fsdp1",
    "fsdp2",
    "fsdp2, checkpointing",
    "fsdp2, reentrant checkpointing",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results of the two processes. `accelerate launch --cpu` would start one; --multi_gpu starts two anywhere."""
    folder = tmp_path_factory.mktemp("parallel")
    script = Path(__file__).with_name("train_in_parallel.py")
    command = [sys.executable, "-m", *LAUNCH.split(), "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, script, folder], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    model = adapted()
    before = full(model)
    train(model, TOKENS)
    assert all((value - before[name]).abs().max() > 1e-3 for name, value in full(model).items())
    return full(model)


@pytest.mark.parametrize("way", WAYS)
def test_both_ranks_end_with_the_factors_of_one_process_on_the_joint_batch(ranks, alone, way):
    assert ranks[0]["world"] == 2
    assert set(ranks[0][way]) == set(alone) and len(alone) == 5
    for name, value in alone.items():
        assert torch.equal(ranks[0][way][name], ranks[1][way][name])
        assert_close(ranks[0][way][name], value, rtol=1e-5, atol=1e-6)


def test_reentrant_checkpointing_under_plain_ddp_is_refused(ranks):
    assert all("use_reentrant=False" in rank["refused"] for rank in ranks)


def test_an_adapter_saved_from_shards_reloads_whole(folder, alone):
    again = PeftModel.from_pretrained(base(), folder / "adapter")
    assert_close({name: value.detach() for name, value in factors_of(again).items()}, alone, rtol=1e-5, atol=1e-6)
    parameters = sum(value.numel() for value in alone.values())
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size <= 4 * parameters + 2048
