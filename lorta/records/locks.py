"""Who works on a run: claim files beside its record, so that two sweeps over one store never run a cell twice.

A claim is a file `claim-N` that appears whole and once: a hard link to a finished file, which is atomic on NFS too,
where locks cannot be relied on. Where there are no hard links (FAT, some network and FUSE file systems) it is a file
that is made exclusively, and read as somebody's by its age until it is whole. Nobody deletes a dead holder's claim to
take its place: contenders link `claim-(N+1)`, which only one of them can. Its holder touches a claim while it works.
No torch.

Not flufl.lock, which breaks a dead owner's lock by deleting it; not filelock, which needs flock, missing on some NFS.
"""

import errno
import json
import os
import platform
import re
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

HEARTBEAT_S = 10.0
STALE_S = 120.0  # without a heartbeat, when the holder's process cannot be seen from here
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
NAME = re.compile(r"claim-(\d{4,})")


@dataclass(frozen=True)
class Holder:
    """The process behind a claim."""

    host: str
    machine: str  # boot and process namespace: where `pid` means something
    pid: int
    started: str  # tells the process from a later one of the same number
    since: str = ""  # when it claimed the run, ISO-8601, UTC

    def __str__(self) -> str:
        """Who it is, for people."""
        return f"process {self.pid} on {self.host}{f' since {self.since}' if self.since else ''}"


class Claim:
    """A claim that this process holds; as a context manager it is touched now and then, and released at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claim":
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def lost(self) -> bool:
        """Return whether another process took over, because this one was stopped for longer than STALE_S."""
        return not self.path.exists() or _claims(self.path.parent)[-1] != self.path

    def release(self) -> None:
        """Remove the claim, after those of the dead holders before it."""
        self._ended.set()
        for path in _claims(self.path.parent):
            if _number(path) <= _number(self.path):
                path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:  # taken over and released, or the disk is away: `lost` tells
                continue


def take(folder: Path) -> Claim | None:
    """Return a new claim on the run of a folder, or None while another process holds one. Raises OSError.

    None may also mean that two processes met and both stood back: ask again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claims = _claims(folder)
    if any(_alive(path) for path in claims):
        return None
    claim = Claim(folder / f"claim-{_number(claims[-1]) + 1 if claims else 1:04d}")
    if not _link(claim.path, json.dumps(asdict(_this_process()))):
        return None
    if any(_alive(path) for path in _claims(folder) if path != claim.path):  # linked since we looked
        claim.path.unlink(missing_ok=True)
        return None
    return claim


def holder(folder: Path) -> Holder | None:
    """Return the living process that holds the run of a folder, or None."""
    alive = [path for path in _claims(folder) if _alive(path)]
    return _read(alive[-1]) if alive else None


def on_this_machine(process: Holder) -> bool:
    """Return whether a holder's process can be seen, and signalled, from here."""
    return process.machine == _machine()


def _claims(folder: Path) -> list[Path]:
    try:
        paths = [Path(entry) for entry in os.scandir(folder) if NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(paths, key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("claim-"))


def _link(path: Path, text: str) -> bool:
    """Make `path` with its whole content, and return False when it is there already."""
    descriptor, temporary = tempfile.mkstemp(prefix=".claim.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return _links(temporary) == 2  # NFS: linked, but the answer was lost and the request repeated
    except FileNotFoundError:  # a holder tidied up meanwhile
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create(path, text)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return True


def _create(path: Path, text: str) -> bool:
    """Make `path` where nothing can be linked, and return False when it is there already."""
    try:
        with path.open("x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _links(path: str) -> int:
    try:
        return os.stat(path).st_nlink
    except FileNotFoundError:
        return 0


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # released since, or cut off by a crash of the machine
        return None


def _alive(path: Path) -> bool:
    """Return whether a claim's holder still works: its process exists, or was heard of lately from elsewhere."""
    owner = _read(path)
    if owner is not None and on_this_machine(owner):
        return _start_of(owner.pid) == owner.started
    try:
        # a heartbeat from the future is none: it would hold the run until then
        return abs(_time_of(path.parent) - path.stat().st_mtime) < STALE_S
    except FileNotFoundError:
        return False


def _time_of(folder: Path) -> float:
    """Return the file system's clock, which need not be this machine's."""
    try:
        descriptor, probe = tempfile.mkstemp(prefix=".claim.", dir=folder)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            Path(probe).unlink(missing_ok=True)
    except OSError:  # who may only read asks for a status
        return time.time()


def _this_process() -> Holder:
    return Holder(
        platform.node(),
        _machine(),
        os.getpid(),
        _start_of(os.getpid()) or "",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        import psutil

        return f"{platform.node()} {psutil.boot_time():.0f}"


def _start_of(pid: int) -> str | None:
    """Return when a process began, None for one that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # proc(5): state and starttime, in ticks since boot
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None
