"""Files of other projects, read strictly: what does not fit is refused in a sentence with file, line and key."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

Kind = TypeVar("Kind")
NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "an object",
    list: "a list",
    bool: "true or false",
}


class Document(NamedTuple):
    """One JSON file."""

    path: Path
    text: str
    sha256: str
    values: dict[str, Any]

    def get(self, kind: type[Kind], *keys: str) -> Kind:
        """Return a nested value. Raises ValueError when it is not there, or of another kind."""
        value = self.at(keys)
        if value is None:
            raise self.error(f"{'.'.join(keys)} is missing", *keys)
        return self._checked(kind, value, keys)

    def find(self, kind: type[Kind], *keys: str) -> Kind | None:
        """Return a nested value, None where it is not there or null. Raises ValueError for one of another kind."""
        value = self.at(keys)
        return None if value is None else self._checked(kind, value, keys)

    def error(self, problem: str, *keys: str) -> ValueError:
        """Return a ValueError that says where a problem is: the line of the last of the keys that is there."""
        return ValueError(f"{self.path}, line {self._line(keys)}: {problem}")

    def at(self, keys: tuple[str, ...]) -> Any:
        """Return a nested value of any kind, None where it is not there."""
        value: Any = self.values
        for key in keys:
            value = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else None
        return value

    def _checked(self, kind: type[Kind], value: Any, keys: tuple[str, ...]) -> Kind:
        if kind is float and type(value) is int:
            return cast(Kind, float(value))
        if type(value) is not kind:
            raise self.error(f"{'.'.join(keys)} must be {NAMES[kind]}, got {_shown(value)}", *keys)
        return value

    def _line(self, keys: tuple[str, ...]) -> int:
        place = 0
        for key in keys:
            at = self.text.find(f'"{key}"', place)
            if at < 0:
                break
            place = at
        return self.text.count("\n", 0, place) + 1


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's text and the SHA-256 of its bytes. Raises ValueError for what is no UTF-8 text."""
    content = path.read_bytes()
    try:
        return content.decode(), hashlib.sha256(content).hexdigest()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: it is no UTF-8 text") from error


def read_document(path: Path) -> Document:
    """Read one JSON file. Raises ValueError for anything that is no JSON object."""
    text, digest = read_text(path)
    values = parse(text, path, 1)
    if not isinstance(values, dict):
        raise ValueError(f"{path}, line 1: it must hold a JSON object, got {_shown(values)}")
    return Document(path, text, digest, cast(dict[str, Any], values))


def parse(text: str, path: Path, line: int) -> Any:
    """Return the values of some JSON that begins in a line of a file. Raises ValueError where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {line + error.lineno - 1}: it is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"{path}, line {line}: it is nested too deep") from error
