"""The mode that the umask gives to a new file, for files that libraries make readable to their owner alone."""

import os
from pathlib import Path


def usual_mode() -> int:
    """Return the mode of a file that is made by `open`."""
    umask = os.umask(0o077)  # to read it is to set it
    os.umask(umask)
    return 0o666 & ~umask


def share(folder: Path) -> None:
    """Give all files of a folder the usual mode: those of safetensors are readable to their owner alone."""
    mode = usual_mode()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
