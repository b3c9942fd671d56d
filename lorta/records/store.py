"""Where records live: runs/<signature>/record.json beside its predictions and history, each file replaced atomically.

A process killed at any moment leaves the old file or the new one, never half of one. No torch.
"""

import errno
import gc
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lorta.records.file_modes import share, usual_mode
from lorta.records.record import LaterSchema, RunRecord, SideFile

RUN_ID = re.compile("[0-9a-f]{12}")
RECORD_NAME = "record.json"
ADAPTER, CHECKPOINT = "adapter", "checkpoint"  # folders in a run's: what it saved, and what it goes on from
PROGRESS_NAME = "progress.json"  # of a run at work; gone when it has ended

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
UNREADABLE = (ValueError, OSError, RecursionError)  # torn, foreign, no file, nested too deep


class StoreUnwritable(OSError):
    """Nothing more can be written; `strerror` is one sentence with the remedy. No run can go on, so sweeps stop."""


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn an error that all later writes would meet too into StoreUnwritable."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE or isinstance(error, StoreUnwritable):
            raise
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
        sentence = f"cannot write {path} ({error.strerror}): {remedy} and start the same command again"
        raise StoreUnwritable(error.errno, sentence) from error


class Store:
    """All runs under one folder. `run_id` is a signature of 12 hex digits."""

    def __init__(self, root: Path | str) -> None:
        """Take the folder of all runs; it is created by the first write."""
        self.root = Path(root)

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run, which may not exist yet. Raises ValueError for what is no signature."""
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"a run's signature must be 12 hex digits, got {run_id!r}.")
        return self.root / run_id

    def open(self, run_id: str) -> tuple[Path, RunRecord | None]:
        """Return the folder of a run, and the record of its attempt before if there is one that can be read."""
        return self.folder(run_id), self.last(run_id)

    def finish(
        self, record: RunRecord, rows: Mapping[str, Sequence[Mapping[str, Any]]], keep_checkpoint: bool = False
    ) -> RunRecord:
        """Write an attempt's final record after its side files, and remove what only a run at work needs.

        `rows` are those of NAME.jsonl, in the record as NAME_file. Returns the record as written.
        """
        files = {f"{name}_file": self.write_rows(record.run_id, f"{name}.jsonl", rows[name]) for name in rows}
        record = replace(record, **files)
        folder = self.folder(record.run_id)
        share(folder / ADAPTER)
        (folder / PROGRESS_NAME).unlink(missing_ok=True)
        self.write(record)
        if record.status == "success" and not keep_checkpoint:
            remove(folder / CHECKPOINT)
        return record

    def write(self, record: RunRecord) -> Path:
        """Write a record over the run's previous one and return its path.

        Raises ValueError, leaving the previous record, when the new one could not be read back, or when the previous
        one is of a later version of this package.
        """
        text = record.to_json(indent=1)
        path = self.folder(record.run_id) / RECORD_NAME
        RunRecord.from_json(text, str(path))
        if sentence := self.later(record.run_id):
            raise LaterSchema(sentence)
        write_atomically(path, text + "\n")
        return path

    def read(self, run_id: str) -> RunRecord | None:
        """Return a run's record, or None when there is none. Raises ValueError for a torn or foreign file."""
        path = self.folder(run_id) / RECORD_NAME
        if path.parent.is_file():
            raise ValueError(f"{path.parent} must be a run's folder, and is a file.")
        if not path.exists():
            return None
        record = RunRecord.from_json(path.read_text(encoding="utf-8"), str(path))
        if record.run_id != run_id:
            raise ValueError(f"{path} holds the record of run {record.run_id}; move it to the folder of that name.")
        return record

    def later(self, run_id: str) -> str | None:
        """Return why a run's record must stay as it is: a later version of this package wrote it. Otherwise None."""
        try:
            self.read(run_id)
        except LaterSchema as error:
            return str(error)
        except UNREADABLE:
            pass
        return None

    def finished(self, run_id: str) -> bool:
        """Return whether the run has a result, so that it need not run again; a torn record is no result."""
        record = self.last(run_id)
        return record is not None and record.status == "success"

    def last(self, run_id: str) -> RunRecord | None:
        """Return a run's record, None where there is none that can be read."""
        try:
            return self.read(run_id)
        except UNREADABLE:
            return None

    def tidy(self, run_id: str) -> None:
        """Remove what killed processes left half-written in a run's folder; for the run's holder only.

        Who asks for a claim at this moment may lose a file, and stands back.
        """
        for path in self.folder(run_id).glob(".*"):
            if path.is_file():
                path.unlink(missing_ok=True)

    def records(self) -> list[RunRecord]:
        """Return every readable record, ordered by signature; one warning lists the files that are not records."""
        readable: list[RunRecord] = []
        problems: list[str] = []
        for folder in sorted(self.root.glob("*")):
            if not RUN_ID.fullmatch(folder.name) and not (folder / RECORD_NAME).exists():
                continue  # of other use, such as Slurm's logs
            try:
                if record := self.read(folder.name):
                    readable.append(record)
            except UNREADABLE as error:
                problems.append(f"  {folder / RECORD_NAME}: {error}")
        if problems:
            warnings.warn("left out what is no record:\n" + "\n".join(problems), stacklevel=2)
        return readable

    def write_rows(self, run_id: str, name: str, rows: Iterable[Mapping[str, Any]]) -> SideFile:
        """Write one JSON object per line to `name` (predictions.jsonl, history.jsonl) in the run's folder.

        A NaN or infinite number becomes null, and the row names its column in `non_finite`.
        """
        lines = [_row_to_json(row) for row in rows]
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(self.folder(run_id) / name, text)
        return SideFile(path=name, sha256=hashlib.sha256(text.encode()).hexdigest(), n=len(lines))

    def read_rows(self, run_id: str, file: SideFile) -> list[dict[str, Any]]:
        """Return the rows of a side file. Raises ValueError when its bytes are not those of the record."""
        path = self.folder(run_id) / file.path
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.sha256:
            raise ValueError(f"{path} must have sha256 {file.sha256}, as its record says, got {digest}: run it again.")
        return [json.loads(line) for line in content.decode().split("\n") if line]


def remove(path: Path) -> None:
    """Remove a folder or a file, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Replace a file in one step: readers see the old content or the new one, if `lasting` also after a power cut.

    Raises StoreUnwritable for a disk that is full or cannot be written to.
    """
    with writing(path):
        _replace(path, content, lasting)


def _replace(path: Path, content: str | bytes, lasting: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(temporary, usual_mode())  # mkstemp gives 0o600, which would hide results from the rest of a group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if not lasting:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def export(records: Iterable[RunRecord], path: Path) -> None:
    """Write records to one file (results/records/<suite>.jsonl), one line each, ordered by signature.

    A name that ends in .gz is compressed; the same records give the same bytes.
    """
    lines = [record.to_json() for record in sorted(records, key=lambda record: record.run_id)]
    content = "".join(f"{line}\n" for line in lines).encode()
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_export(path: Path) -> list[RunRecord]:
    """Return the records of an exported file. Raises ValueError, naming the line, for anything that is not a record."""
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().split("\n")
    gc.disable()  # it would search thousands of records for cycles that are not there
    try:
        return [RunRecord.from_json(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line]
    finally:
        gc.enable()


def _row_to_json(row: Mapping[str, Any]) -> str:
    values = {name: _finite(value) for name, value in row.items()}
    non_finite = [name for name, value in row.items() if not _is_finite(value)]
    return json.dumps(values | ({"non_finite": non_finite} if non_finite else {}), ensure_ascii=False, allow_nan=False)


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_finite(item) for item in cast(list[Any], value))
    return not isinstance(value, float) or math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in cast(list[Any], value)]
    return value if _is_finite(value) else None
