"""The NVIDIA GPUs that this process may use, under the names that CUDA_VISIBLE_DEVICES takes. No torch.

CUDA reads the variable when it starts: a list of numbers, of UUIDs or their beginnings, or of MIG instances, which ends
before the first name that is none; a name given twice leaves no GPU at all (CUDA Programming Guide, "Environment
Variables"; torch.cuda does the same). Slurm gives a task that asked for no GPU `NoDevFiles`.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"
NONE = ("", "-1", "NoDevFiles")  # values of the variable
DRIVER = Path("/proc/driver/nvidia/gpus")
ANSWER_S = 30.0  # that nvidia-smi may take: seconds for each GPU whose driver has to start
LISTED = re.compile(r"\(UUID: ([^)]+)\)")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU that nvidia-smi lists; a divided one is used by its MIG instances only."""

    uuid: str
    instances: tuple[str, ...] = ()


def gpus_here(variables: Mapping[str, str] = os.environ) -> bool:
    """Return whether this machine has NVIDIA GPUs that are not all hidden, by a look at a folder only."""
    return variables.get(VARIABLE, "all") not in NONE and DRIVER.is_dir()


@lru_cache
def installed() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine in nvidia-smi's order; none where it cannot be asked."""
    gpus: list[Gpu] = []
    for line in _nvidia_smi("-L"):
        if match := LISTED.search(line):
            if line.startswith("GPU"):
                gpus.append(Gpu(match[1]))
            elif gpus:
                gpus[-1] = Gpu(gpus[-1].uuid, (*gpus[-1].instances, match[1]))
    return tuple(gpus)


def visible_gpus(variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return a name for each GPU, or MIG instance, that a process started now would see: the user's own where given.

    Where nvidia-smi does not answer, the user's list is believed; without one, a single GPU is certain.
    """
    if not gpus_here(variables):
        return ()
    gpus, asked = installed(), variables.get(VARIABLE)
    if asked is None:
        return tuple(name for gpu in gpus for name in gpu.instances or (gpu.uuid,)) or ("0",)
    names: list[str] = []
    for name in map(str.strip, asked.split(",")):
        if name in NONE or (gpus and _uuid(name, gpus) is None):
            break
        names.append(name)
    return tuple(names)


def gpu_problems(variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence where CUDA_VISIBLE_DEVICES names what is not here, which CUDA would silently leave out."""
    if VARIABLE not in variables or not gpus_here(variables) or not (gpus := installed()):
        return []
    asked = variables[VARIABLE]
    head, numbers = f"environment variable {VARIABLE}={asked}:", ", ".join(map(str, range(len(gpus))))
    used: set[str] = set()
    for name in map(str.strip, asked.split(",")):
        if name == "-1":
            return []
        uuid = _uuid(name, gpus)
        if uuid is None:
            return [
                f"{head} there is no GPU {name!r} here, and CUDA ends the list there: choose of {numbers}, or UUIDs"
            ]
        if uuid in used:
            return [f"{head} it names GPU {name} twice, and CUDA then sees none: name each once"]
        used.add(uuid)
    return []


def free_bytes(names: tuple[str, ...]) -> int | None:
    """Return the memory that is free on the fullest of these GPUs; None where it is not known, as for MIG instances."""
    gpus, free = installed(), dict[str, int]()
    for line in _nvidia_smi("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"):
        uuid, _, mebibytes = line.partition(",")
        if mebibytes.strip().isdigit():
            free[uuid.strip()] = int(mebibytes) * MEBIBYTE
    wanted = [_uuid(name, gpus) for name in names]
    known = [free[uuid] for uuid in wanted if uuid is not None and uuid in free]
    return min(known) if known and len(known) == len(wanted) else None


@contextmanager
def one_gpu() -> Iterator[None]:
    """Within the block, CUDA starts with the first of several visible GPUs only; if it has started, nothing changes."""
    before, names = os.environ.get(VARIABLE), visible_gpus()
    if len(names) < 2:
        yield
        return
    os.environ[VARIABLE] = names[0]
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _uuid(name: str, gpus: tuple[Gpu, ...]) -> str | None:
    """Return the UUID that a name stands for: a number, or the beginning of exactly one UUID. None where there is none.

    CUDA's own numbers differ from nvidia-smi's on machines with GPUs of several kinds, unless CUDA_DEVICE_ORDER is
    PCI_BUS_ID; how many there are is the same.
    """
    if name.isdecimal():
        return gpus[int(name)].uuid if int(name) < len(gpus) else None
    known = [uuid for gpu in gpus for uuid in (gpu.uuid, *gpu.instances) if uuid.startswith(name)]
    return known[0] if len(known) == 1 and name.startswith(("GPU-", "MIG-")) else None


def _nvidia_smi(*words: str) -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
