"""What a terminal cannot show is printed as an escape: a sentence with an accent must not end a command."""

import io
import sys


def print_anything() -> None:
    r"""Let standard output write \xe9 for a character that its encoding lacks, as standard error does by itself."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
