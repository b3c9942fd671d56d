"""The file runs/ID/log.txt: what a run does and is warned of, line by line while it runs. No torch."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOG_NAME = "log.txt"
MOST_BYTES = 200_000  # a file; the run's own few lines are written behind them, too
RUN = logging.getLogger("lorta.run")  # what the run itself says, for this file and not for the terminal
RUN.propagate = False
LISTENED = (RUN.name, "", "transformers", "datasets", "torch")  # some do not pass on to the root, ""


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Within the block, lines of the run, warnings and library logs are added to the folder's log.

    A log that cannot be written is no reason for a run to fail: then there is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _RunLog(folder / LOG_NAME)
    except OSError:
        yield
        return
    loggers, level, show = [logging.getLogger(name) for name in LISTENED], RUN.level, warnings.showwarning
    RUN.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)

    def write_and_show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        handler.handle(RUN.makeRecord(category.__name__, logging.WARNING, "", 0, str(message), (), None))
        show(message, category, *where, **more)

    warnings.showwarning = write_and_show
    try:
        yield
    finally:
        if warnings.showwarning is write_and_show:
            warnings.showwarning = show
        for logger in loggers:
            logger.removeHandler(handler)
        RUN.setLevel(level)
        handler.close()


def add_line(folder: Path, sentence: str) -> None:
    """Add a line to the log of a run whose process is gone."""
    with suppress(OSError), (folder / LOG_NAME).open("a", encoding="utf-8") as stream:
        stream.write(f"{_now()} {sentence}\n")


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


class _RunLog(logging.FileHandler):
    """A file of limited size; a record that reaches it by two loggers is written once, and so are equal lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(message)s"))
        self.bytes_left = MOST_BYTES - path.stat().st_size
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if there is room."""
        own = record.name == RUN.name
        line = record.getMessage() if own else f"{record.levelname.lower()}: {record.name}: {record.getMessage()}"
        if line == self.last or (not own and self.bytes_left <= 0):
            return
        self.last, text = line, f"{_now()} {line}"
        self.bytes_left -= len(text) + 1
        super().emit(logging.makeLogRecord({"msg": text, "levelno": record.levelno}))
        if not own and self.bytes_left <= 0:
            super().emit(logging.makeLogRecord({"msg": f"{_now()} the log is full: no more lines of libraries"}))

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without the line: a full disk is told of by what must be written."""
