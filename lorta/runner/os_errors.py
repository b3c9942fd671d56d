"""Errors of the operating system inside a run: whether the store itself is to blame, and the path that failed."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from lorta.config.settings import RuntimeSettings
from lorta.records.store import UNWRITABLE, Store, StoreUnwritable, writing

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")  # in errors of other types
NEEDED_BYTES = 2**16  # a folder that takes less holds no run


def os_error_behind(error: BaseException | None) -> OSError | None:
    """Return the operating system's error from which a library made its own, None where there is none."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__
    return None


def require_store(error: BaseException, store: Store) -> None:
    """Raise StoreUnwritable when an error is that of the store, where no other run could go on either."""
    behind = os_error_behind(error)
    if isinstance(behind, StoreUnwritable):
        raise behind
    if (behind is not None and behind.errno in UNWRITABLE) or NO_SPACE.search(str(error)):
        with writing(store.root):
            store.root.mkdir(parents=True, exist_ok=True)
            try_writing(store.root)


def infra_message(error: BaseException, runtime: RuntimeSettings) -> str:
    """Return what went wrong with the path that failed, and the remedy where something could not be written."""
    behind = os_error_behind(error)
    said = str(error) or type(error).__name__
    if behind is not None and behind is not error:
        said = f"{said} ({behind})"
    unwritable = behind is not None and behind.errno in UNWRITABLE
    if not unwritable and not NO_SPACE.search(said):
        return said
    named = None if behind is None else behind.filename
    places = _places(runtime)
    if isinstance(named, str | bytes):
        path = Path(os.fsdecode(named)).absolute()
        around = [(name, place) for name, place in places.items() if path.is_relative_to(place.absolute())]
        around.sort(key=lambda item: len(item[1].absolute().parts))
        blamed = [f"{name}={place}" for name, place in around[-1:]]  # the innermost
    else:  # the error of a write has no path
        blamed = [f"{name}={place}" for name, place in places.items() if _fault(place) is not None]
    where = f" in {', '.join(blamed)}" if blamed else ""
    full = behind is not None and behind.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space there" if full else "make it writable"
    return f"{said}{where}: {remedy} or choose another folder, and start the same command again"


def _places(runtime: RuntimeSettings) -> Mapping[str, Path]:
    """Return the folders beside the store that libraries write to, by the name of what chooses them."""
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return {
        "runtime.cache": Path(runtime.cache),
        "HF_HOME": Path(hub),
        "TMPDIR": Path(os.environ.get("TMPDIR") or "/tmp"),
    }


def _fault(folder: Path) -> OSError | None:
    """Return why nothing can be written to a folder, None where it can or where there is no such folder."""
    try:
        try_writing(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


def try_writing(folder: Path) -> None:
    """Write a small file to a folder, and remove it. Raises OSError."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(NEEDED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
