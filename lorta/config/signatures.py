"""What the class of a YAML node takes, read from its source: a plan checks keys and types without importing torch.

Followed are imports by name, base classes, dataclasses and `__init__`. Where the source leaves open what is taken
(`**settings`, a star import, a name that is assigned), nothing is said.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorta.config.moved import MOVED
from lorta.config.suggestions import did_you_mean

KINDS = {
    "int": "a whole number",
    "float": "a number",
    **dict.fromkeys(("list", "List", "tuple", "Tuple", "set", "Sequence", "Iterable"), "a list"),
    **dict.fromkeys(("dict", "Dict", "Mapping"), "a mapping"),
    "bool": "true or false",
    "str": "text",
    "None": "null",
}
SCALES = ("alpha",)  # ends of names that PEFT annotates as whole numbers, and computes with as any
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Key:
    """A key that is taken: whether it has a default, and which kinds of values it takes; None: of any kind."""

    required: bool
    kinds: frozenset[str] | None


class Open(Exception):
    """The source does not say which keys there are."""


def node_problems(node: Mapping[str, Any], filled: tuple[str, ...] = ()) -> list[str]:
    """Return a sentence for each key that the `_target_` of a node does not take, lacks, or takes as another type.

    `filled` are keys that code adds later. Raises ValueError for a `_target_` that does not exist.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        return ["the key `_target_` is missing: the class that it is for"]
    try:
        keys = keys_of(MOVED.get(target, target))
    except Open:
        return []
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    problems = [f"`{key}` is no key of {target}{did_you_mean(key, list(keys))}" for key in given if key not in keys]
    needed = [name for name, key in keys.items() if key.required and name not in {*given, *filled}]
    problems += [f"the key `{name}` is missing, which {target} needs" for name in needed]
    for name, value in given.items():
        kinds = keys[name].kinds if name in keys else None
        if kinds is not None and not _kinds_of_value(value) & _widened(name, kinds):
            problems.append(f"{name}={value!r}: {' or '.join(sorted(_widened(name, kinds)))} is needed")
    return problems


def _widened(name: str, kinds: frozenset[str]) -> frozenset[str]:
    """Return the kinds that a key takes, of numbers the widest alone."""
    if "a number" in kinds or ("a whole number" in kinds and name.endswith(SCALES)):
        return kinds - {"a whole number"} | {"a number"}
    return kinds


def keys_of(dotted: str) -> dict[str, Key]:
    """Return the keys that a class or function takes. Raises Open, or ValueError for a path that leads nowhere."""
    return _keys(*_find(*_module(dotted), dotted))


def _module(dotted: str) -> tuple[Path, str]:
    """Return the file of the module that a dotted path leads to, and the name in it."""
    top, *parts = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot import '{dotted}': {error}") from error
    if spec is None or not parts:
        raise ValueError(f"cannot import '{dotted}': there is no module {top}")
    if not spec.submodule_search_locations:
        place = Path(spec.origin or "")
    else:
        place = Path(next(iter(spec.submodule_search_locations)))
    while len(parts) > 1:
        below = _below(place, parts[0])
        if below is None:
            break
        place = below
        parts = parts[1:]
    if len(parts) != 1:
        raise Open
    return _file(place), parts[0]


def _below(place: Path, name: str) -> Path | None:
    return next((path for path in (place / name, place / f"{name}.py") if _file(path).is_file()), None)


def _file(place: Path) -> Path:
    return place / "__init__.py" if place.is_dir() else place


@lru_cache
def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise Open from error


def _find(file: Path, name: str, dotted: str) -> tuple[Path, Definition]:
    """Return the definition that a name of a module stands for, and its file."""
    names: list[str] = []
    for statement in _parsed(file).body:
        if isinstance(statement, Definition) and statement.name == name:
            return file, statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _find(*_imported(file, statement, alias.name), dotted)
                names.append(alias.asname or alias.name)
        else:
            names += _bound(statement)
    if "*" in names or "__getattr__" in names or name in names or _assigns_late(file):
        raise Open
    raise ValueError(
        f"cannot import '{dotted}': {file.parent.name}/{file.name} has no {name}{did_you_mean(name, names)}"
    )


def _bound(statement: ast.stmt) -> list[str]:
    """Return the names that a statement other than `from ... import` gives to a module."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _assigns_late(file: Path) -> bool:
    """Return whether names are bound where this module does not look: below `if`, `try`, or by globals()."""
    branches = ast.If | ast.Try | ast.With | ast.For
    statements = [statement for statement in _parsed(file).body if isinstance(statement, branches)]
    return any(not isinstance(one, ast.If) or ast.unparse(one.test) != "TYPE_CHECKING" for one in statements)


def _imported(file: Path, statement: ast.ImportFrom, name: str) -> tuple[Path, str]:
    if not statement.level:
        return _module(f"{statement.module}.{name}")
    place = file.parents[statement.level - 1]
    for part in (statement.module or "").split(".") if statement.module else []:
        below = _below(place, part)
        if below is None:
            raise Open
        place = below
    return _file(place), name


def _keys(file: Path, definition: Definition) -> dict[str, Key]:
    if isinstance(definition, ast.FunctionDef):
        return _arguments(definition)
    own = next(
        (part for part in definition.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None
    )
    if own is not None:
        return dict(list(_arguments(own).items())[1:])  # without self
    keys: dict[str, Key] = {}
    for base in reversed(definition.bases):
        if not isinstance(base, ast.Name):
            raise Open
        if base.id not in ("object", "Protocol"):
            keys |= _keys(*_find(file, base.id, base.id))
    return keys | dict(_fields(definition))


def _fields(definition: ast.ClassDef) -> Iterator[tuple[str, Key]]:
    """Yield the fields that a dataclass adds."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list):
        return
    for part in definition.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            text = "" if part.value is None else ast.unparse(part.value)
            if "ClassVar" not in ast.unparse(part.annotation) and "init=False" not in text:
                required = part.value is None or (text.startswith("field(") and "default" not in text)
                yield part.target.id, Key(required, _with_null(_kinds(part.annotation), text))


def _with_null(kinds: frozenset[str] | None, default: str) -> frozenset[str] | None:
    return kinds if kinds is None or "None" not in default else kinds | {"null"}


def _arguments(function: ast.FunctionDef) -> dict[str, Key]:
    arguments = function.args
    if arguments.kwarg is not None or arguments.vararg is not None:
        raise Open
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: Key(
            default is None, _with_null(_kinds(argument.annotation), ast.unparse(default) if default else "")
        )
        for argument, default in pairs
    }


def _kinds(annotation: ast.expr | None) -> frozenset[str] | None:
    """Return the kinds of values of an annotation; None for any."""
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):
            return _kinds(ast.parse(annotation.value, mode="eval").body)
        return frozenset({"null"}) if annotation.value is None else None
    if isinstance(annotation, ast.Name):
        return frozenset({KINDS[annotation.id]}) if annotation.id in KINDS else None
    if isinstance(annotation, ast.BinOp):
        return _either(_kinds(annotation.left), _kinds(annotation.right))
    if not isinstance(annotation, ast.Subscript):
        return None
    outer = ast.unparse(annotation.value).rpartition(".")[2]
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if outer == "Literal":
        values = [item.value for item in inner if isinstance(item, ast.Constant)]
        return frozenset().union(*map(_kinds_of_value, values)) if len(values) == len(inner) else None
    if outer == "Optional":
        return _either(_kinds(inner[0]), frozenset({"null"}))
    if outer == "Union":
        return _either(*map(_kinds, inner))
    return frozenset({KINDS[outer]}) if outer in KINDS else None


def _either(*several: frozenset[str] | None) -> frozenset[str] | None:
    known = [kinds for kinds in several if kinds is not None]
    return frozenset().union(*known) if len(known) == len(several) else None


def _kinds_of_value(value: object) -> frozenset[str]:
    """Return the kinds that a value of YAML passes for: a number is taken where true or false is asked for."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"true or false"})
    if isinstance(value, int):
        return frozenset({"a whole number", "a number", "true or false"})
    if isinstance(value, float):
        return frozenset({"a number", "true or false"})
    if isinstance(value, Mapping):
        return frozenset({"a mapping"})
    return frozenset({"text"}) if isinstance(value, str) else frozenset({"a list"})
