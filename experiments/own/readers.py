"""Rows of one file of a user, with the place of each: CSV, TSV, JSON lines, a JSON array, or Parquet. No torch."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.files import BYTE_ORDER_MARK, MOST_CHARACTERS, read_lines, require_data, text_lines
from lorta.system.terminal import counted

MOST_OF_ARRAY = 10**9  # characters of a JSON array, which may be a single line
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
Rows = Iterator[tuple[str, Any]]


def read_rows(file: Path) -> Rows:
    """Yield (place, row): the place is "line 3" of a text and "row 3" of other files, both counted from 1.

    Raises ValueError, with file and place, for what cannot be read as the file's ending says.
    """
    return READERS[ending(file)](file)


def ending(file: Path) -> str:
    """Return the part of a file's name that says its format, such as .csv of train.csv.gz."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def header_place(file: Path, first_row: str) -> str:
    """Return where a file names its columns: in the first line of a text with separators, else in the first row."""
    return "line 1" if ending(file) in (".csv", ".tsv") else first_row


def _separated(file: Path, separator: str) -> Rows:
    csv.field_size_limit(MOST_CHARACTERS)
    lines = (text.lstrip(BYTE_ORDER_MARK) if number == 1 else text for number, text in text_lines(file))
    table = csv.reader(lines, delimiter=separator, strict=True)
    begun = 1
    try:
        header = _header(file, next(table, []), separator)
        begun = table.line_num + 1
        for cells in table:
            if cells and len(cells) != len(header):
                raise ValueError(
                    f"{file}, line {begun}: {counted(len(cells), 'cell')}, and the first line has {len(header)}"
                )
            if cells:
                yield f"line {begun}", dict(zip(header, cells, strict=True))
            begun = table.line_num + 1
    except csv.Error as error:
        remedy = "put a cell with a line break, a quote or a separator into quotes, and double each quote in it"
        raise ValueError(f"{file}, line {begun}: not readable as a table ({error}): {remedy}") from error


def _header(file: Path, names: list[str], separator: str) -> list[str]:
    other = [mark for mark in OTHER_SEPARATORS if mark != separator and len(names) == 1 and mark in names[0]]
    if other:
        raise ValueError(
            f"{file}, line 1: one column, '{names[0]}': it seems to be separated by {OTHER_SEPARATORS[other[0]]}, and "
            f"a {ending(file)} file by {OTHER_SEPARATORS[separator]}: save it so, or name a file with tabs .tsv"
        )
    if any(not name.strip() for name in names):
        raise ValueError(f"{file}, line 1: column {[not name.strip() for name in names].index(True) + 1} has no name")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{file}, line 1: two columns are called '{twice[0]}': rename one of them")
    return names


def _comma(file: Path) -> Rows:
    return _separated(file, ",")


def _tab(file: Path) -> Rows:
    return _separated(file, "\t")


def _json_lines(file: Path) -> Rows:
    for number, row in read_lines(file):
        yield f"line {number}", row


def _json(file: Path) -> Rows:
    """Read a list of objects, or JSON lines under the same ending, as some tools write them."""
    texts = [text for _, text in text_lines(file, MOST_OF_ARRAY)]
    first = next((text for text in texts if text.strip(BYTE_ORDER_MARK + " \t\r\n")), "")
    if not first.lstrip(BYTE_ORDER_MARK).lstrip().startswith("["):
        yield from _json_lines(file)
        return
    try:
        rows = json.loads("".join(texts).lstrip(BYTE_ORDER_MARK))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as JSON ({error})") from error
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row


def _parquet(file: Path) -> Rows:
    from pyarrow import ArrowException, parquet

    require_data(file)
    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row


READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _comma,
    ".tsv": _tab,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
