"""From a mapping with `_target_` to the object it names: how YAML registers code. Workers need no Hydra."""

import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorta.config.moved import MOVED
from lorta.config.places import CONF, own_folders

OWN = frozenset({"lorta", "baselines", "experiments", "peft"})  # packages whose classes any record may name
TARGET = re.compile(r"^\s*_target_:\s*['\"]?(\w+)", re.MULTILINE)
_trusted: ContextVar[frozenset[str] | None] = ContextVar("trusted", default=None)
_folders: ContextVar[tuple[Path, ...]] = ContextVar("folders", default=())


@contextmanager
def trusting(folders: Iterable[Path] = ()) -> Iterator[None]:
    """Within the block, only the project's packages, PEFT, those that conf names and those in these folders are
    imported, and only classes are built.

    For settings that come from elsewhere: to import a module is to run it, and to build is to call. A block in another
    trusts what that does, too. Raises ValueError for a folder that is not there.
    """
    named = tuple(folder.resolve() for folder in folders)
    packages = frozenset(name for folder in named for name in _packages_in(folder))
    outer = _trusted.set(OWN | packages | (_trusted.get() or frozenset())), _folders.set((*_folders.get(), *named))
    try:
        yield
    finally:
        _trusted.reset(outer[0])
        _folders.reset(outer[1])


def _packages_in(folder: Path) -> list[str]:
    """Return the packages and modules in a folder, and let them be imported. Raises ValueError."""
    if not folder.is_dir():
        raise ValueError(f"--code {folder}: no such folder")
    sys.path += [] if str(folder) in sys.path else [str(folder)]
    return [path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]


def trusts_file(file: Path) -> bool:
    """Return whether a file of Python may be run here: any, or within a `trusting` block those of named folders."""
    return trusts_all() or any(file.resolve().is_relative_to(place) for place in (*_folders.get(), *own_folders()))


def resolve(dotted_path: str) -> Any:
    """Import what `package.module.name` names.

    Raises ValueError with the path when it cannot be found, or is code of a package that is not trusted here.
    """
    path = MOVED.get(dotted_path, dotted_path)
    _require_trust(dotted_path, path)
    try:
        named = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import '{dotted_path}': {error}") from error
    _require_trust(dotted_path, str(getattr(named, "__module__", path)))  # lorta.x.os.system is os.system
    return named


def _require_trust(dotted_path: str, module: str) -> None:
    trusted, package = _trusted.get(), re.split(r"[.:]", module)[0]
    if trusted is not None and package not in trusted and package not in _named_in((CONF, *own_folders())):
        raise ValueError(
            f"'{dotted_path}' is code of {package}, which these settings from elsewhere would run: read it, and name "
            f"its folder if you trust it (--code FOLDER)"
        )


def trusts_all() -> bool:
    """Return whether no `trusting` block is around."""
    return _trusted.get() is None


@lru_cache
def _named_in(folders: Sequence[Path]) -> frozenset[str]:
    """Return the packages that the user's own files name."""
    files = (file for folder in folders for file in folder.glob("**/*.yaml"))
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return frozenset(name for text in texts for name in TARGET.findall(text))


def build(node: Mapping[str, Any], **more: Any) -> Any:
    """Call the node's `_target_` with the node's other keys and `more`; nested nodes are left as mappings.

    Raises ValueError when the target cannot be imported or does not take these keys.
    """
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    if not isinstance(node.get("_target_"), str):
        raise ValueError(f"{node.get('name', 'a group')}: its file needs `_target_`, the class that it is for")
    target = resolve(node["_target_"])
    if not trusts_all() and not isinstance(target, type):
        raise ValueError(f"'{node['_target_']}' is no class, and settings from elsewhere may name classes only")
    try:
        return target(**arguments, **more)
    except TypeError as error:
        raise ValueError(f"{node['_target_']} refuses its settings: {error}") from error
