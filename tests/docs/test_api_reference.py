"""docs/api.md names every public object; its docstring lists arguments, results and errors, and its example runs."""

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lorta.tuner

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
WHOLE = ("lorta.tuner",)  # packages whose every public name is on the page


def documented() -> Iterator[str]:
    """Yield the dotted names that the page documents, with the members of classes."""
    for name, options in re.findall(r"^\.\. auto\w+:: ([\w.]+)\n((?:   :.*\n)*)", PAGE, flags=re.MULTILINE):
        yield name
        members = re.search(r":members: (.+)", options)
        yield from (f"{name}.{member}" for member in (members.group(1).split(", ") if members else ()))


def find(name: str) -> tuple[Any, Any]:
    """Return an object and its module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        found = module
        for part in parts[length:]:
            found = getattr(found, part)
        return found, importlib.import_module(found.__module__)
    raise LookupError(name)


NAMES = list(documented())


@pytest.mark.parametrize("package", WHOLE)
def test_every_public_name_is_on_the_page(package):
    assert {f"{package}.{name}" for name in importlib.import_module(package).__all__} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_names_every_argument_and_what_is_returned(name):
    found, _ = find(name)
    text = inspect.getdoc(found) or ""
    parameters = inspect.signature(found).parameters
    own = [key for key in parameters if key not in ("self", *_inherited(found))]
    if not _by_field(found) and "docs/adapters.md" not in text:  # PeftAdapter's arguments are that page
        assert [key for key in own if not re.search(rf"^ +{key}: ", text, flags=re.MULTILINE)] == []
    if not inspect.isclass(found) and inspect.signature(found).return_annotation not in (None, "None"):
        assert re.search(r"^Returns:$", text, flags=re.MULTILINE), text


def _inherited(found: Any) -> set[str]:
    """Return the fields that a class has from its bases: PEFT documents its own."""
    bases = found.__mro__[1:] if inspect.isclass(found) else ()
    return {name for base in bases for name in getattr(base, "__annotations__", {})}


def _by_field(found: Any) -> bool:
    """Return whether a class is nobody's to construct: made by PEFT, or a result."""
    protocol = getattr(found, "_is_protocol", False)
    return inspect.isclass(found) and (issubclass(found, tuple) or hasattr(found, "forward") or protocol)


@pytest.mark.parametrize("name", [name for name in NAMES if "Example:" in (inspect.getdoc(find(name)[0]) or "")])
def test_the_example_gives_what_it_says(name):
    found, module = find(name)
    (test,) = doctest.DocTestFinder(recurse=False).find(found, name, globs=dict(vars(module)))
    assert test.examples
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed == 0, "".join(said)


def test_every_function_and_class_on_the_page_has_an_example():
    """A class whose methods have examples needs none of its own, and methods need none if their class has one."""
    with_one = {name for name in NAMES if ">>> " in (inspect.getdoc(find(name)[0]) or "")}
    results = {name for name in NAMES if inspect.isclass(found := find(name)[0]) and issubclass(found, tuple)}
    shown = with_one | {name.rpartition(".")[0] for name in with_one} | results | {"lorta.tuner.fit.FitSettings"}
    assert [name for name in NAMES if not {name, name.rpartition(".")[0]} & shown] == []


def test_the_package_registers_the_tuner_that_the_page_describes():
    assert lorta.tuner.LortaConfig(r=2).peft_type == "LORTA"
