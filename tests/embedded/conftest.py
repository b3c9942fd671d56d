"""One thread for every test of this folder."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Threads on busy cores wait for each other far longer than these small sums take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
