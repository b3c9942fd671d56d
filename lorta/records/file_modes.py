"""The modes that the umask gives, for files and folders that libraries make readable to their owner alone."""

import os
from pathlib import Path


def usual_mode() -> int:
    """Return the mode of a file that is made by `open`."""
    return 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0o077)  # to read it is to set it
    os.umask(umask)
    return umask


def share(folder: Path) -> None:
    """Give a folder and all in it the usual modes: files of safetensors and folders of `mkdtemp` are their owner's."""
    umask = _umask()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink() and path.exists():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
