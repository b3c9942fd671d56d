"""SIGTERM and SIGUSR1 as a request to leave: training stops behind a checkpoint, anything else at once.

Schedulers send one of the two before they take a machine away; `EXIT_STATUS` asks them to start the same command again.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_STATUS = getattr(os, "EX_TEMPFAIL", 75)  # sysexits.h: try again later


class Preempted(BaseException):
    """The run was asked to leave by `signal`; no Exception, so that no library swallows it.

    `step` is where a checkpoint is.
    """

    def __init__(self, step: int | None = None) -> None:
        super().__init__(f"stopped by a signal{'' if step is None else f', behind a checkpoint at step {step}'}")
        self.step, self.signal = step, _listener.asked


class _Listener:
    """The process's one answer to the signals."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the first signal that came
        self.patient = 0  # blocks that look at `asked` themselves

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if not self.patient:
            raise Preempted


_listener = _Listener()


def preemption_requested() -> bool:
    """Return whether a signal came since handle_preemption_signals began."""
    return _listener.asked is not None


def requested_by() -> int | None:
    """Return the number of the signal that came since handle_preemption_signals began."""
    return _listener.asked


@contextmanager
def handle_preemption_signals() -> Iterator[None]:
    """Within the block a signal raises Preempted, unless `defer_preemption` is around what it meets.

    Only a main thread can listen; in any other the block changes nothing. An outer block's request stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(SIGNALS[0]) is _listener:
        yield
        return
    _listener.asked, _listener.patient = None, 0
    before = [signal.signal(number, _listener) for number in SIGNALS]
    try:
        yield
    finally:
        _listener.asked = None
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def defer_preemption() -> Iterator[None]:
    """Within the block a signal only sets `preemption_requested`, which the block looks at between steps."""
    _listener.patient += 1
    try:
        yield
    finally:
        _listener.patient -= 1
