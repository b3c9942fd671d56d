"""What a run does about trouble: a smaller micro-batch, a limit to its memory, what a checkpoint must agree with."""

import hashlib
import json
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorta.config.settings import TrainerSettings
from lorta.records.sections import Batch
from lorta.records.store import remove, write_atomically
from lorta.system import provenance

CARD, CHECKSUMS = "card.json", "checksums.json"  # of a checkpoint; the second is written last
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")
MEBIBYTE = 2**20


class CheckpointUnusable(Exception):
    """A checkpoint that cannot be gone on with, met when training had begun; the text says why. Start again."""


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint, damaged or not; the name of an unfinished one is no number."""
    checkpoints = [path for path in folder.glob("*") if re.fullmatch("[0-9]+", path.name)]
    return max(checkpoints, key=lambda path: int(path.name), default=None)


def whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint if it is as it was written."""
    newest = newest_checkpoint(folder)
    return None if newest is None or damage_of(newest) else newest


def damage_of(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, None where they are those that its checksums tell of."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text())
        wrong = [name for name in sorted({*sums, CARD}) if sums.get(name) != sha256_of(checkpoint / name)]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{', '.join(wrong)} changed after it was written" if wrong else None


def take_over(source: Path, folder: Path) -> None:
    """Copy the newest whole checkpoint of another run into an empty folder of checkpoints; nothing where there is none.

    The caller holds the run of `folder`, which starts from its beginning where the copy fails.
    """
    newest = whole_checkpoint(source)
    if newest is None or newest_checkpoint(folder) is not None:
        return
    fresh = folder / f".taken-{newest.name}"
    remove(fresh)
    try:
        shutil.copytree(newest, fresh)
        fresh.rename(folder / newest.name)
    except OSError:
        remove(fresh)


def write_checksums(checkpoint: Path) -> None:
    """Write the checksums of a checkpoint's files, as its last file. Raises OSError."""
    sums = {path.name: sha256_of(path) for path in sorted(checkpoint.iterdir())}
    write_atomically(checkpoint / CHECKSUMS, json.dumps(sums))


def sha256_of(path: Path) -> str:
    """Return the hash of a file, which may be larger than memory. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_card(trainer: TrainerSettings) -> dict[str, Any]:
    """Return what must be the same for a checkpoint to be gone on with: code, packages and the micro-batch."""
    code, packages = provenance.code(), provenance.environment().packages
    versions = {name: packages.get(name) for name in PACKAGES}
    size = {"micro_batch": trainer.per_device_train_batch_size}
    return {"commit": code.git_sha, "uncommitted": code.diff_sha256, **versions, **size}


def with_micro_batch(trainer: TrainerSettings, most: int) -> TrainerSettings:
    """Return the settings with at most `most` rows at a time and as many in an optimizer step as before."""
    effective = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    micro = max(size for size in range(1, max(most, 1) + 1) if effective % size == 0)
    changes = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": effective // micro}
    return trainer.model_copy(update=changes)


def halved(trainer: TrainerSettings) -> TrainerSettings | None:
    """Return the settings with half the micro-batch or the next smaller divisor of the batch, None below one row."""
    micro = trainer.per_device_train_batch_size
    return with_micro_batch(trainer, micro // 2) if micro > 1 else None


def settings_of_checkpoint(trainer: TrainerSettings, checkpoint: Path | None) -> TrainerSettings:
    """Return the settings with the micro-batch to which memory had forced the attempt before, if it left a trace."""
    if checkpoint is None:
        return trainer
    try:
        micro = int(json.loads((checkpoint / CARD).read_text())["micro_batch"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # it will not be gone on with
        return trainer
    return with_micro_batch(trainer, micro) if micro < trainer.per_device_train_batch_size else trainer


def batch_section(asked: TrainerSettings, used: TrainerSettings) -> Batch:
    """Return the record's section: the batch asked for, in the portions used."""
    micro, accumulation = used.per_device_train_batch_size, used.gradient_accumulation_steps
    requested = asked.per_device_train_batch_size
    return Batch(effective=micro * accumulation, micro=micro, grad_accum=accumulation, micro_requested=requested)


def held_bytes() -> int:
    """Return the process's private writable memory, which RLIMIT_DATA limits."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


@contextmanager
def limited_memory(mebibytes: int | None, beside: int | None = None) -> Iterator[None]:
    """Within the block the process can allocate so much beside `beside` bytes, and meets MemoryError beyond.

    `beside` is what the process holds already, if it is not given. Private writable memory is counted (RLIMIT_DATA),
    not address space, of which torch and CUDA reserve far more than they use, and not mapped files. Raises ValueError
    elsewhere than on Linux, where the limit means nothing.
    """
    if mebibytes is None:
        yield
        return
    if sys.platform != "linux":
        raise ValueError(f"runtime.memory_limit_mib={mebibytes}: only Linux can limit a process; set it to null")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    base = held_bytes() if beside is None else beside
    resource.setrlimit(resource.RLIMIT_DATA, (base + mebibytes * MEBIBYTE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
