"""Records as strangers may have written them: a part of another shape is none, and no character steers a terminal."""

import re
from collections.abc import Callable
from typing import Any

SECTIONS = ("adapter", "task", "model", "config", "params", "time", "metrics", "failure", "code", "imported")
SAID = ("kind", "type", "message", "phase")  # of a failure
# All control characters but tab and line break, and those that turn the direction of text: an escape sequence in a
# name would clear the screen or set the window's title of whoever lists a store
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# The same in the bytes of a JSON file, as such or as an escape: most files have none, and stay as they are
STEERING_BYTES = re.compile(
    rb"\\u00[0189][0-9a-fA-F]|\\u007[fF]|\\[bfr]|\\u20[26]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]"
)


def printable(value: Any) -> Any:
    r"""Return a JSON value whose texts show each steering character as an escape, such as \x1b."""
    if isinstance(value, str):
        return STEERING.sub(lambda character: character[0].encode("unicode_escape").decode(), value)
    if isinstance(value, list):
        return [printable(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {printable(name): printable(part) for name, part in value.items()}  # pyright: ignore
    return value


def shaped(values: dict[str, Any]) -> dict[str, Any]:
    """Return a record's JSON values without the parts that have another shape than this version reads."""
    values = values | {name: None for name in SECTIONS if not isinstance(values.get(name) or {}, dict)}
    values |= {name: _parts(values[name], _is_number) for name in ("params", "time") if values.get(name)}
    if values.get("metrics"):
        values["metrics"] = {use: _parts(scores, _is_score) for use, scores in values["metrics"].items()}
    if failure := values.get("failure"):
        file = failure.get("traceback_file")
        told = {name: str(failure.get(name)) for name in SAID}
        values["failure"] = failure | told | {"traceback_file": file if isinstance(file, str) else None}
    if (values.get("task") or {}).get("splits"):
        values["task"] = values["task"] | {"splits": _parts(values["task"]["splits"], _is_split)}
    words = values.get("overrides")
    listed = isinstance(words, list) and all(isinstance(word, str) for word in words)  # pyright: ignore
    return values if listed or words is None else values | {"overrides": None}


def _parts(values: Any, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the parts of a mapping that fit; nothing of what is no mapping."""
    return {name: part for name, part in values.items() if fits(part)} if isinstance(values, dict) else {}  # pyright: ignore


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and _is_number(value.get("value"))  # pyright: ignore


def _is_split(value: Any) -> bool:
    dropped: Any = value.get("dropped") or {} if isinstance(value, dict) else None  # pyright: ignore
    counted = isinstance(dropped, dict) and all(isinstance(number, int) for number in dropped.values())  # pyright: ignore
    return counted and isinstance(value.get("read") or 0, int)
