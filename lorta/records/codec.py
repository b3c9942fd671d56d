"""Dataclasses to plain JSON values and back, strictly: what does not fit is refused with the field's dotted name.

Not pydantic: it writes NaN as null without a word, and a record must name such fields and say what the value was.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

MANY = 50  # entries from which on a mapping is kept once for all records
MOST_SEEN = 64  # such mappings that are kept for later records
_seen: dict[tuple[Any, ...], dict[str, Any]] = {}
Decoder = Callable[[Any, str], Any]  # (JSON value, dotted name of the field) -> typed value


def encode(value: Any, where: str, non_finite: dict[str, str]) -> Any:
    """Return `value` as JSON types: dataclass fields in their order, mapping keys sorted.

    A float field of a dataclass that is NaN or infinite becomes null and is named in `non_finite` (dotted name -> why).
    Raises ValueError for any other value that JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise ValueError(f"{where} must be finite to be recorded, got {value}.")
    if is_dataclass(value):
        return {item.name: _encode_field(value, item.name, where, non_finite) for item in fields(value)}
    if isinstance(value, Mapping):
        mapping = cast(Mapping[Any, Any], value)
        return {str(key): encode(mapping[key], f"{where}.{key}", non_finite) for key in sorted(mapping, key=str)}
    if isinstance(value, list | tuple):
        items = cast(list[Any], value)
        return [encode(item, f"{where}[{position}]", non_finite) for position, item in enumerate(items)]
    raise ValueError(f"{where} must hold JSON values only, got {type(value).__name__} {value!r}; convert it first.")


def _encode_field(section: Any, name: str, where: str, non_finite: dict[str, str]) -> Any:
    value = getattr(section, name)
    path = f"{where}.{name}" if where else name
    if isinstance(value, float) and not math.isfinite(value):
        non_finite[path] = f"the value was {value}"
        return None
    return encode(value, path, non_finite)


def decode(kind: Any, value: Any, where: str) -> Any:
    """Return `value` as `kind`. Raises ValueError that names the field for a missing, unknown or ill-typed one."""
    return _decoder(kind)(value, where)


@cache
def _decoder(kind: Any) -> Decoder:
    """Return the decoder of one annotation; built once, because a table reads thousands of records."""
    origin: Any = get_origin(kind)
    arguments = get_args(kind)
    if is_dataclass(kind):
        return _section_decoder(kind)
    if origin in (Union, UnionType):
        return _optional_decoder(*(argument for argument in arguments if argument is not NoneType))
    if origin is Literal:
        return _choice_decoder(arguments)
    if origin is dict:
        return _mapping_decoder(arguments[1])
    if origin is tuple:
        return _tuple_decoder(arguments[0])
    if kind is Any:
        return lambda value, where: value
    return _number_decoder if kind is float else _plain_decoder(kind)


def _section_decoder(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {item.name: _decoder(hints[item.name]) for item in fields(kind)}
    added = {item.name: item.default for item in fields(kind) if item.metadata.get("added")}  # older records lack it

    def section(value: Any, where: str) -> Any:
        given = _expect(dict, value, where)
        filled = added | given
        prefix = f"{where}." if where else ""
        if filled.keys() != decoders.keys():
            raise ValueError(_key_problem(filled.keys() - decoders.keys(), decoders.keys() - filled.keys(), where))
        return kind(**added | {name: decoders[name](item, prefix + name) for name, item in given.items()})

    return section


def _key_problem(unknown: set[str], missing: set[str], where: str) -> str:
    place = f"'{where}'" if where else "the record"
    problems = [f"{place} has the unknown field {', '.join(sorted(unknown))}"] if unknown else []
    problems += [f"{place} misses the field {', '.join(sorted(missing))}"] if missing else []
    return " and ".join(problems)


def _optional_decoder(inner: Any) -> Decoder:
    read = _decoder(inner)
    return lambda value, where: None if value is None else read(value, where)


def _choice_decoder(choices: tuple[Any, ...]) -> Decoder:
    def choice(value: Any, where: str) -> Any:
        if value not in choices:
            raise ValueError(f"'{where}' must be one of {', '.join(map(str, choices))}, got {value!r}")
        return value

    return choice


def _mapping_decoder(inner: Any) -> Decoder:
    if inner is Any:
        return lambda value, where: _expect(dict, value, where)
    read, all_fit = _decoder(inner), {inner}

    def mapping(value: Any, where: str) -> Any:
        pairs = _expect(dict, value, where)
        if set(map(type, pairs.values())) == all_fit:  # most are package versions, a hundred a record
            return _shared(pairs) if inner is str and len(pairs) >= MANY else pairs
        return {key: read(item, f"{where}.{key}") for key, item in pairs.items()}

    return mapping


def _shared(pairs: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping that an earlier record has where it is equal: a store names the same packages."""
    key = tuple(pairs.items())
    if key not in _seen:
        if len(_seen) >= MOST_SEEN:
            _seen.clear()
        _seen[key] = pairs
    return _seen[key]


def _tuple_decoder(inner: Any) -> Decoder:
    read = _decoder(inner)
    return lambda value, where: tuple(
        read(item, f"{where}[{position}]") for position, item in enumerate(_expect(list, value, where))
    )


def _number_decoder(value: Any, where: str) -> float:
    return float(value) if type(value) is int else _expect(float, value, where)


def _plain_decoder(kind: Any) -> Decoder:
    return lambda value, where: _expect(kind, value, where)


def _expect(kind: Any, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"'{where or 'the record'}' must be {kind.__name__}, got {type(value).__name__} {value!r}")
    return value
