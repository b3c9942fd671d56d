"""A user's files as rows of texts and a label, every row checked: columns by name or recognised. No torch."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.files import half_character
from experiments.own.readers import header_place, read_rows

Kind = Literal["classes", "numbers"]
TEXTS = (("text",), ("sentence",), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"))
LABELS = ("label", "labels", "class", "category", "target", "score")
IDENTITIES = ("idx", "id")  # of a row, kept in predictions
MOST_UNKNOWN = 3  # classes in one message
MANY_CLASSES = 20  # from here on, more classes than half of the rows are no classes


@dataclass(frozen=True)
class Columns:
    """One or two columns of texts, and that of the label."""

    texts: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Table:
    """The rows of a file in its order: `text0` (and `text1`), `label` as text or number, and `idx` where there is one.

    `places` are where each row stands.
    """

    file: Path
    columns: Columns
    rows: tuple[dict[str, Any], ...]
    places: tuple[str, ...]

    @property
    def labels(self) -> list[Any]:
        """The label of each row."""
        return [row["label"] for row in self.rows]

    def at(self, chosen: Iterable[int]) -> "Table":
        """Return the table of these rows alone."""
        numbers = list(chosen)
        places = tuple(self.places[number] for number in numbers)
        return Table(self.file, self.columns, tuple(self.rows[number] for number in numbers), places)


def read_table(file: Path, kind: Kind, texts: Sequence[str] | None, label: str | None) -> Table:
    """Read and check a file. Raises ValueError with its first problem, its place, and how many other rows have one."""
    columns: Columns | None = None
    check: _Check | None = None
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    problem, wrong = "", 0
    for place, row in read_rows(file):
        if check is None or columns is None:
            if not isinstance(row, dict):
                raise ValueError(f"{file}, {place}: an object with columns is needed, not {_kind_of(row)}")
            columns = choose_columns(list(row), texts, label, f"{file}, {header_place(file, place)}")
            check = _Check(kind, columns, next((name for name in IDENTITIES if name in row), None))
        try:
            rows.append(check.row(row, place))
            places.append(place)
        except ValueError as error:
            problem, wrong = problem or f"{file}, {place}: {error}", wrong + 1
    if problem:
        raise ValueError(problem + (f" ({wrong - 1:,} more rows have problems)" if wrong > 1 else ""))
    if columns is None:
        raise ValueError(f"{file}: no rows")
    return Table(file, columns, tuple(rows), tuple(places))


def choose_columns(names: Sequence[str], texts: Sequence[str] | None, label: str | None, where: str) -> Columns:
    """Return the columns asked for, the others recognised by their names, or because no others are left.

    Raises ValueError, with what there is and the setting to give, where that is not clear.
    """
    there = f"{where}: the columns are {', '.join(names)}"
    if missing := [name for name in (*(texts or ()), *([label] if label else [])) if name not in names]:
        setting = "data.label" if missing[0] == label else "data.columns"
        raise ValueError(f"{there}; there is no {missing[0]}: correct {setting}, or the file")
    if texts is not None and (len(texts) not in (1, 2) or len(set(texts)) < len(texts) or label in texts):
        raise ValueError(
            f"{where}: data.columns={list(texts)} must be one or two different columns of text, not the label"
        )
    label = label or _recognised_label([name for name in names if name not in (texts or ())], there)
    left = [name for name in names if name != label and name not in IDENTITIES]
    chosen = texts or next((known for known in TEXTS if set(known) <= set(left)), None)
    if chosen is None and len(left) != 1:
        raise ValueError(f"{there}; which hold the text? data.columns=[{left[0] if left else 'text'}], one or two")
    return Columns(tuple(chosen or left), label)


def _recognised_label(names: Sequence[str], there: str) -> str:
    named = [name for known in LABELS for name in names if name.lower() == known]
    left = [name for name in names if name not in IDENTITIES]
    others = [name for name in left if name not in {name for known in TEXTS for name in known}]
    if not named and len(others) != 1:
        raise ValueError(f"{there}; which is the label? data.label=COLUMN")
    return named[0] if named else others[0]


class _Check:
    """Turns raw rows into checked ones; remembers what all rows must share."""

    def __init__(self, kind: Kind, columns: Columns, identity: str | None) -> None:
        self.kind, self.columns, self.identity = kind, columns, identity
        self._place_of: dict[object, str] = {}
        self._type_of: dict[str, tuple[str, str]] = {}  # column -> type of its values and the place of the first

    def row(self, row: Any, place: str) -> dict[str, Any]:
        """Return a checked row. Raises ValueError with what is wrong with it."""
        if not isinstance(row, dict):
            raise ValueError(f"an object with columns is needed, not {_kind_of(row)}")
        needed = (*self.columns.texts, self.columns.label)
        if missing := [name for name in needed if name not in row]:
            raise ValueError(f"column {', '.join(missing)} is missing; there are {', '.join(row)}")
        checked: dict[str, Any] = {f"text{number}": _text(row, name) for number, name in enumerate(self.columns.texts)}
        checked["label"] = self._class(row, place) if self.kind == "classes" else self._number(row)
        if self.identity is not None:
            checked["idx"] = self._identity(row, self.identity, place)
        return checked

    def _class(self, row: Mapping[str, Any], place: str) -> str:
        value, name = row[self.columns.label], self.columns.label
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, int | str):
            number = isinstance(value, float) and math.isfinite(value)
            hint = ": for numbers use task=regression" if number else ""
            raise ValueError(f"column {name} must be a class, a text or a whole number, not {_kind_of(value)}{hint}")
        self._same_type(name, value, place)
        text = str(value)
        if not text.strip():
            raise ValueError(f"column {name}, the label, is empty")
        if text != text.strip() or half_character(text):
            raise ValueError(f"column {name}: the label {text!r} has spaces around it, or half a character: correct it")
        return text

    def _number(self, row: Mapping[str, Any]) -> float:
        value, name = row[self.columns.label], self.columns.label
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            shown = _kind_of(value) if isinstance(value, list | dict | bool | None) else repr(value)
            raise ValueError(f"column {name} must be a number such as 2.5, not {shown}; classes: task=classification")
        return number

    def _identity(self, row: Mapping[str, Any], name: str, place: str) -> int | str:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"column {name} must be a text or a whole number in every row, not {_kind_of(value)}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"column {name} must fit into 64 bits, not {value}")
        self._same_type(name, value, place)
        if value in self._place_of:
            raise ValueError(
                f"{name} {value!r} is also in {self._place_of[value]}: give each row its own, or rename the column"
            )
        self._place_of[value] = place
        return value

    def _same_type(self, name: str, value: object, place: str) -> None:
        kind = _kind_of(value)
        first, where = self._type_of.setdefault(name, (kind, place))
        if kind != first:
            raise ValueError(f"column {name} is {kind} here and {first} in {where}: write all rows alike")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise ValueError(f"column {name} must be text, not {_kind_of(value)}")
    if not value.strip():
        raise ValueError(f"column {name} is empty")
    if half := half_character(value):
        raise ValueError(f"column {name} holds {half}, half of a surrogate pair: add the other half, or leave it out")
    return value


def _kind_of(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN"}.get(str(value), "an infinite number")
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "null" if value is None else "a value")


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes, each once: whole numbers by size, otherwise by the characters' code points."""
    classes = set(labels)
    numbers = all(re.fullmatch(r"-?\d+", label) for label in classes)
    return tuple(sorted(classes, key=lambda label: (int(label) if numbers else 0, label)))


def class_problems(train: Table, scored: Table, classes: Sequence[str]) -> list[str]:
    """Return what makes the labels unusable for a classifier with these classes, one sentence each."""
    name = train.columns.label
    if len(classes) < 2:
        return [f"{train.file}: every {name} is {classes[0]!r}: a classifier needs two classes or more"]
    known = set(classes)
    unknown = {
        row["label"]: f"{table.file}, {place}"
        for table in (train, scored)
        for row, place in reversed(list(zip(table.rows, table.places, strict=True)))
        if row["label"] not in known
    }
    return [
        f"{place}: {name} {label!r} is none of the classes of the training rows: {listed(classes)}"
        for label, place in list(unknown.items())[:MOST_UNKNOWN]
    ]


def many_classes(train: Table, classes: Sequence[str]) -> list[str]:
    """Return a sentence where labels differ in most rows, as numbers and texts do."""
    if len(classes) <= MANY_CLASSES or 2 * len(classes) <= len(train.rows):
        return []
    return [
        f"{train.file}: {train.columns.label} has {len(classes):,} different values in {len(train.rows):,} rows, which "
        "are no classes: choose another column with data.label, or use task=regression"
    ]


def number_problems(train: Table, scored: Table) -> list[str]:
    """Return a sentence for each split whose labels are all equal: no correlation is defined."""
    tables = {train.file: train, scored.file: scored}.values()
    return [
        f"{table.file}: every {table.columns.label} is {table.labels[0]:g}: a correlation needs different numbers"
        for table in tables
        if len(set(table.labels)) == 1
    ]


def listed(classes: Sequence[str], most: int = 12) -> str:
    """Return the classes as a list for people."""
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
