"""jemalloc for the workers of a sweep, where it is installed; PyTorch's tuning guide advises it on CPUs. No torch.

Between tensors, which are aligned to 64 bytes, glibc's heap keeps about as much memory as is in them.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "LD_PRELOAD"
FILE = "libjemalloc.so.2"
KNOWN = re.compile(r"/lib(jemalloc|tcmalloc|mimalloc|tbbmalloc)[^/]*$", re.MULTILINE)


def installed() -> str | None:
    """Return jemalloc as the loader finds it, a Conda environment's own first, None where it is not installed."""
    if sys.platform != "linux":
        return None
    from ctypes.util import find_library

    own = Path(sys.prefix) / "lib" / FILE
    return str(own) if own.is_file() else find_library("jemalloc")


@contextmanager
def preferred(wanted: str) -> Iterator[None]:
    """Let processes that are begun within the block use jemalloc, unless "system" is wanted or LD_PRELOAD is taken."""
    library = installed() if wanted == "auto" and VARIABLE not in os.environ else None
    if library is None:
        yield
        return
    os.environ[VARIABLE] = library
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def in_use() -> str | None:
    """Return the allocator that was put before this process's C library, None for the C library's own."""
    try:
        match = KNOWN.search(Path("/proc/self/maps").read_text())
    except OSError:
        return None
    return match[1] if match else None
