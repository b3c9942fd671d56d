"""What a run changes in a process is given back."""

import os

import torch

from lorta.system import process_state
from lorta.system.process_state import restored


def change_everything(folder) -> None:
    os.environ["LORTA_TEST_ADDED"] = "1"
    os.environ["LORTA_TEST_CHANGED"] = "after"
    del os.environ["LORTA_TEST_REMOVED"]
    os.chdir(folder)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)


def test_the_next_run_starts_like_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LORTA_TEST_CHANGED", "before")
    monkeypatch.setenv("LORTA_TEST_REMOVED", "before")
    before = dict(os.environ), os.getcwd(), process_state._settings_of_torch()
    with restored():
        change_everything(tmp_path)
        assert process_state._settings_of_torch() == ("float64", False, "medium", True)
    assert (dict(os.environ), os.getcwd(), process_state._settings_of_torch()) == before
