"""What a terminal cannot show is printed as an escape: a sentence with an accent must not end a command."""

import io
import os
import sys


def print_anything() -> None:
    r"""Let standard output write \xe9 for a character that its encoding lacks, as standard error does by itself."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_nothing_more() -> None:
    """Let what is still to be printed go nowhere: Python flushes at its end, and would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def counted(number: int, noun: str) -> str:
    """Return a number and its noun in the right form.

    Example:
        >>> counted(1, "run"), counted(2, "run"), counted(0, "run")
        ('1 run', '2 runs', '0 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
