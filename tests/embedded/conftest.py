"""One thread for every test of this folder."""

import pytest


@pytest.fixture(autouse=True)
def in_one_thread(one_thread):
    """The sums of these tests are small."""
