"""No hub, one tokenizer thread, and the expensive tests only when they are asked for."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
SLURM = "tests/slurm/"
OPT_IN = {"slow": "takes minutes", "gpu": "needs a CUDA device", "network": "needs a model hub"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked, with the way to run it."""
    asked = config.getoption("-m") or ""
    for item in items:
        for marker, reason in OPT_IN.items():
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: pytest -m {marker}"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in full that nothing was tried on a real Slurm: among other skips it would be overlooked."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if report.nodeid.startswith(SLURM)]
    reasons = Counter(str(report.longrepr[2]) for report in skipped)
    if reasons:
        terminalreporter.section("WARNING: Slurm was not tested", sep="!", red=True, bold=True)
    for reason, count in reasons.items():
        terminalreporter.line(f"{count} tests: {reason}")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads on busy cores wait for each other far longer than small sums take."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
