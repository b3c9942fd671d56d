"""A worker whose sweep is gone leaves: nobody would take its record further, and its cores belong to others now.

The end of the parent is seen as the end of a pipe that the kernel closes with it, however it was killed; the death
signal of prctl(2) would watch the server that workers are forked from instead. No torch.
"""

import multiprocessing
import os
import signal
import threading

from lorta.system.preemption import EXIT_STATUS

GRACE_S = 60.0  # for the step at work and its checkpoint


def leave_with_parent() -> None:
    """From now on, ask this process to leave as soon as its parent is gone, and end it GRACE_S later.

    For a process that multiprocessing started; in any other nothing happens.
    """
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_watch, args=(threading.main_thread().ident,), daemon=True).start()


def _watch(main_thread: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # to the thread that answers, or it would go on waiting in a system call; between runs the signal ends the process
    signal.pthread_kill(main_thread, signal.SIGUSR1)
    threading.Event().wait(GRACE_S)
    os._exit(EXIT_STATUS)
