"""Garbage collection where much is made and little of it is garbage: imports, plans, and the end of a command."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = (50_000, 20, 100)  # thresholds; Python's own cost a seventh of a plan's time and free little


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely within the block, in which no model is trained: its tensors would stay too long."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def end_without_collection() -> None:
    """Let the interpreter end without searching all modules for garbage, a quarter of a plan's time."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
