"""jemalloc for the workers of a sweep, where it is installed; PyTorch's tuning guide advises it on CPUs. No torch.

Between tensors, which are aligned to 64 bytes, glibc's heap keeps about as much memory as is in them.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "LD_PRELOAD"
FILE = "libjemalloc.so.2"
ALL_ARENAS = b"arena.4096.purge"  # jemalloc(3), MALLCTL_ARENAS_ALL
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


def give_back() -> None:
    """Give the pages that this process has freed back to the system: jemalloc's or glibc's, on Linux."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallctl"):
        libc.mallctl(ALL_ARENAS, None, None, None, ctypes.c_size_t(0))
    elif hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
