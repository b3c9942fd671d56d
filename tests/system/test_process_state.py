"""What a run changes in a process is given back."""

import gc
import os
import resource
import sys
import warnings

import pytest
import torch

from lorta.system import process_state
from lorta.system.process_state import forget_peak, restored

CHANGED = {
    "threads": 2,
    "dtype": "float64",
    "device": "meta",
    "gradients": False,
    "precision": "medium",
    "deterministic": True,
    "anomalies": True,
    "mkldnn": False,
}


def change_everything(folder) -> None:
    os.environ["LORTA_TEST_ADDED"] = "1"
    os.environ["LORTA_TEST_CHANGED"] = "after"
    del os.environ["LORTA_TEST_REMOVED"]
    os.chdir(folder)
    sys.path.insert(0, "elsewhere")
    gc.disable()
    warnings.simplefilter("error")
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    torch.backends.mkldnn.set_flags(False)
    torch.set_flush_denormal(True)


def all_there_is() -> list:
    state = [dict(os.environ), os.getcwd(), list(sys.path), gc.isenabled(), list(warnings.filters)]
    return [*state, process_state._settings_of_torch(), float(torch.tensor([1e-310], dtype=torch.float64)[0] * 1)]


def test_the_next_run_starts_like_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LORTA_TEST_CHANGED", "before")
    monkeypatch.setenv("LORTA_TEST_REMOVED", "before")
    before = all_there_is()
    with restored():
        change_everything(tmp_path)
        assert process_state._settings_of_torch() == CHANGED
    assert all_there_is() == before


@pytest.mark.skipif(sys.platform != "linux", reason="writes to /proc")
def test_a_peak_of_memory_begins_anew():
    filled = bytearray(b"x" * 2**26)
    del filled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forget_peak()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before
