"""Seconds that a command took of the processor: unlike the clock's, they say nothing of what else a machine does."""

import os


def seconds_of_children() -> float:
    """Processor seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system
