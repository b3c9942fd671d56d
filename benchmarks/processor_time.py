"""Processor time and memory of a command with all the processes that it begins, on Linux."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): processes whose parent is gone become this one's children
WATCH = (sys.executable, "-m", "benchmarks.processor_time")
ROOT = Path(__file__).parents[1]


class Cost(NamedTuple):
    """Seconds of all processes together, in user and system mode, and the MiB of the largest."""

    seconds: float
    mebibytes: float


def cost(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command in a folder and return what it cost. Raises CalledProcessError where it fails."""
    words = [*WATCH, str(folder), *command]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds, mebibytes = done.stdout.split()[-2:]
    return Cost(float(seconds), float(mebibytes))


def python_of(checkout: Path) -> str:
    """Return the interpreter of a checkout: of its own environment, else this one."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


def main() -> int:
    """Run the command of the arguments behind the folder, wait for all it began, and print its cost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    status = subprocess.run(sys.argv[2:], cwd=sys.argv[1], stdout=subprocess.DEVNULL).returncode
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
