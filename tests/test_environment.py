"""What the shell that starts the tests has set decides nothing in them, nor in the processes that they start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "WANDB_MODE": "offline",
    "HF_ENDPOINT": "http://localhost:1",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "TRANSFORMERS_VERBOSITY": "debug",
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "SLURM_JOB_ID": "7",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "LORTA_REHEARSAL": "[]",
}
NEEDED = {"HF_HUB_OFFLINE": "1", "HF_HOME": "elsewhere", "LORTA_DATA": "data", "PATH": os.environ["PATH"]}


def test_variables_that_would_change_an_outcome_are_gone_before_a_library_is_imported():
    code = "import os, sys; import tests.conftest; print(*os.environ); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=HOSTILE | NEEDED, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HOSTILE.keys()
    assert NEEDED.keys() <= set(done.stdout.split())


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_variable_that_a_library_sets_does_not_reach_the_next_test(attempt):
    assert "ACCELERATE_LEFT_BEHIND" not in os.environ
    os.environ["ACCELERATE_LEFT_BEHIND"] = str(attempt)


def test_ci_computes_tensors_again_as_another_processor_does():
    """Bounds that hold on one processor alone made `make test` fail on the next."""
    assert "\nmake numbers\n" in (ROOT / ".ci" / "run").read_text()
    recipe = (ROOT / "Makefile").read_text().partition("\nnumbers:")[2].partition("\n\n")[0]
    assert "MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default" in recipe
    assert "$(NUMBERS)" in recipe
