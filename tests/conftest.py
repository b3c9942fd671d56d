"""No hub, one tokenizer thread, an environment that decides nothing, and expensive tests only when asked for."""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of two workers on two cores: their threads would wait for each other
DECIDING = (  # beginnings of variables by which libraries and launchers change what a test sees
    *("WANDB_", "HF_", "HUGGINGFACE_", "ACCELERATE_", "TRANSFORMERS_", "DATASETS_", "PEFT_", "TRL_", "DIFFUSERS_"),
    *("FSDP_", "DEEPSPEED_", "MIXED_PRECISION", "PARALLELISM_CONFIG_", "TRACKIO_", "MLFLOW_", "COMET_", "CLEARML_"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_", "MASTER_"),
    *("TORCHELASTIC_", "OMPI_", "PMI_", "MPI_LOCALRANKID", "MV2_COMM_", "SLURM_"),
    *("TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "PYTORCH_", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
    *("BNB_", "LORTA_", "HYDRA_", "OC_"),
)
KEPT = (  # where files lie, and what keeps tests off the network
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "TRANSFORMERS_OFFLINE"),
    *("TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "SLURM_CONF", "LORTA_DATA"),
)


def clear_environment() -> None:
    """Unset what may change a test's outcome, for this process and those that it starts."""
    for name in [name for name in os.environ if name.startswith(DECIDING) and name not in KEPT]:
        del os.environ[name]


clear_environment()  # at once: libraries read their variables when they are imported
SLURM = "tests/slurm/"
LOUD = {SLURM: "Slurm", "tests/runner/test_trackio.py": "Trackio"}  # tests -> what is not tested without it
LONGEST = (SLURM, "tests/smoke/", "tests/faults/", "tests/packaging/", "tests/contract/")  # files of a minute or more
MODULES, MANY_MODULES = pytest.StashKey[int](), 100  # how many there were when garbage was last collected; some more
OPT_IN = {"slow": "takes minutes", "gpu": "needs a CUDA device", "network": "needs a model hub"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked, with the way to run it. The longest files begin first: nothing waits for them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    asked = config.getoption("-m") or ""
    for item in items:
        for marker, reason in OPT_IN.items():
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: pytest -m {marker}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what was collected out of the search for garbage."""
    leave_out_what_is_kept(session.config)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Leave the modules that a test imported out of the search for garbage."""
    if len(sys.modules) > item.config.stash[MODULES] + MANY_MODULES:
        leave_out_what_is_kept(item.config)


def leave_out_what_is_kept(config: pytest.Config) -> None:
    """Keep the garbage collector from searching what lasts as long as the tests, a fifth of the time of small ones."""
    config.stash[MODULES] = len(sys.modules)
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in full that nothing was tried on a real Slurm or Trackio: among other skips it would be overlooked."""
    every = terminalreporter.stats.get("skipped", [])
    for beginning, name in LOUD.items():
        skipped = [report for report in every if report.nodeid.startswith(beginning)]
        reasons = Counter(str(report.longrepr[2]) for report in skipped)
        if reasons:
            terminalreporter.section(f"WARNING: {name} was not tested", sep="!", red=True, bold=True)
        for reason, count in reasons.items():
            terminalreporter.line(f"{count} tests: {reason}")


@pytest.fixture(autouse=True)
def environment_decides_nothing() -> Iterator[None]:
    """Unset what an earlier test left behind, too: transformers and accelerate write variables of their own.

    Afterwards as well: the fixtures of the next module are made before this one.
    """
    clear_environment()
    yield
    clear_environment()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads on busy cores wait for each other far longer than small sums take."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
