"""An append-only file of JSON lines, one for each piece of work: what is in it is never done again."""

import json
import os
import threading
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Journal:
    """Rows by their `key`. Opening cuts off a last line that a killed process left half-written.

    Raises ValueError naming the file and the line for any other line that is not a row.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        if file.exists():
            self._read()

    def _read(self) -> None:
        content = self.file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self.file.open("r+b") as stream:
                stream.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.file}, line {number}: no row of this file's making ({error})") from error

    def append(self, row: Row) -> None:
        """Add a row and see it on the disk before returning; may be called from several threads."""
        line = json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        with self._lock:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            self.rows[row["key"]] = row
