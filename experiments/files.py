"""Data files as users bring them: what is wrong with one is a sentence with file, line and remedy. No torch."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BYTE_ORDER_MARK = "\ufeff"  # some editors put it in front of UTF-8, and joined files have it in the middle
BEGINNINGS = {  # of files that are not what their name says
    b"version https://git-lfs": "it is a git-lfs pointer, not the data: run `git lfs pull` in its repository",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}
COMPRESSED = b"\x1f\x8b"
HEAD = 64  # bytes that tell
MOST_CHARACTERS = 10_000_000  # of a line: more is no row, and could fill the memory


def read_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row) of JSON lines, plain or .gz. Raises ValueError naming file and line for anything else.

    Empty lines are no rows; a byte-order mark is left out.
    """
    for number, line in text_lines(file):
        if text := line.lstrip(BYTE_ORDER_MARK).strip():
            yield number, _row(text, file, number)


def text_lines(file: Path, most: int = MOST_CHARACTERS) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a text in UTF-8, plain or .gz. Raises ValueError naming file and line for anything else.

    A line of more than `most` characters is refused before it is in memory.
    """
    require_data(file)
    opener = gzip.open if file.suffix.lower() == ".gz" else open
    number = 0
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            while line := stream.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise ValueError(f"{file}, line {number}: longer than {most:,} characters, so it is no row")
                yield number, line
    except UnicodeDecodeError as error:
        line = _line_that_is_no_text(file, opener)
        raise ValueError(f"{file}, line {line}: not UTF-8 ({error.reason}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        place = f", after line {number}" if number else ""
        raise ValueError(f"{file}{place}: cannot be read ({error})") from error


def _line_that_is_no_text(file: Path, opener: Callable[..., Any]) -> int:
    """Return the first line with bytes that are not UTF-8; a decoder, which reads ahead, knows of none."""
    number = 1
    with opener(file, "rb") as stream:
        while line := stream.readline(4 * MOST_CHARACTERS):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number + _line_ends(line[: error.start])
            number += _line_ends(line)
    return number


def _line_ends(text: bytes) -> int:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")


def _row(text: str, file: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {number}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError(f"{file}, line {number}: lists or objects are nested too deeply to be read") from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise ValueError(f"{file}, line {number}: cannot be read ({error})") from error


def require_data(file: Path) -> None:
    """Raise ValueError for a file whose first bytes say that it is something else, such as a git-lfs pointer."""
    try:
        with file.open("rb") as stream:
            sentence = something_else(file.name, stream.read(HEAD))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
    if sentence:
        raise ValueError(f"{file}: {sentence}")


def something_else(name: str, head: bytes) -> str | None:
    """Return what the first bytes of a file say that it is, when its name says otherwise, or None."""
    if head.startswith(COMPRESSED) and not name.lower().endswith(".gz"):
        return f"it is compressed: name it {name}.gz"
    return next((sentence for beginning, sentence in BEGINNINGS.items() if head.startswith(beginning)), None)


def half_character(text: str) -> str | None:
    r"""Return the first half of a surrogate pair in a text, as JSON writes it (\ud83d), or None: it is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"\\u{ord(text[error.start]):04x}"
    return None
