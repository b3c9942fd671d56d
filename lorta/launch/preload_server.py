"""Imported by the process that workers are forked from: what is in memory by then stays shared with all of them.

Garbage collection writes into the header of every object it visits, and a page written to is a page copied; frozen
objects are not visited any more. Workers would otherwise each copy most of what the imports brought.
"""

import gc
import os

import lorta.launch.server_signals  # first: a signal may come while the rest is imported
import lorta.launch.worker  # noqa: F401  what a worker is told to do is read from there
from lorta.launch import preload
from lorta.system import provenance

gc.disable()  # until all is there: of what is imported nothing is to be collected
if preload.VARIABLE in os.environ:
    preload.load(os.environ[preload.VARIABLE])
provenance.code()  # once a sweep, not once a run; and of the code that is in memory now
provenance.environment()
gc.collect()  # of what came after the imports: models that were loaded to warm up
gc.freeze()
gc.enable()
