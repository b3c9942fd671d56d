"""No hub, one tokenizer thread, and the expensive tests only when they are asked for."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
OPT_IN = {"slow": "takes minutes", "gpu": "needs a CUDA device", "network": "needs a model hub"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked, with the way to run it."""
    asked = config.getoption("-m") or ""
    for item in items:
        for marker, reason in OPT_IN.items():
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: pytest -m {marker}"))
