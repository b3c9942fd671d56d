"""Imported before torch, here and by the process workers are forked from: silence about what is as it should be."""

import logging
import os
import warnings

# the profiler, which measures memory, would announce itself and each block that it did not see
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# PEFT imports bitsandbytes whether weights are quantised or not; it misses a faster kernel for 4 bits on CPUs
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def be_quiet() -> None:
    """Silence progress bars and advice of the libraries, which this imports."""
    import datasets

    datasets.disable_progress_bars()
    quiet_transformers()


def quiet_transformers() -> None:
    """Silence progress bars and advice of transformers, such as its report of a head that is new: it is for the log."""
    from transformers.utils import logging as of_transformers

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    of_transformers.set_verbosity_warning()  # which makes its handler, too
    for handler in logging.getLogger("transformers").handlers:
        if type(handler) is logging.StreamHandler:  # that of the terminal
            handler.setLevel(logging.ERROR)
    of_transformers.disable_progress_bar()
