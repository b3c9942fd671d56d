"""Imported by the process that workers are forked from: it outlives signals that are meant for the sweep.

`timeout`, schedulers and shells send SIGTERM to a whole group of processes. Workers and their sweep answer to it; with
this process the sweep would lose the pipes by which it knows its workers, and leave before they have. No torch.
"""

import signal

from lorta.system.preemption import SIGNALS

for number in SIGNALS:
    signal.signal(number, signal.SIG_IGN)
