"""The tree has addresses: small folders that say what they hold, tests that are found by the module's name."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE_FOLDERS = ("lorta", "baselines", "experiments", "benchmarks", "scripts")
CODE = [ROOT / "run.py", *(file for folder in CODE_FOLDERS for file in (ROOT / folder).rglob("*.py"))]
PACKAGES = sorted(file.parent for file in (ROOT / "lorta").rglob("__init__.py"))
MOST_MODULES, MOST_LINES = 20, 400  # of a folder; of a file


def modules(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.py") if file.name != "__init__.py")


def test_no_folder_holds_more_modules_than_a_reader_overlooks():
    sizes = Counter({file.parent.relative_to(ROOT).as_posix(): 0 for file in CODE})
    for folder in sizes:
        sizes[folder] = len(modules(ROOT / folder))
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_file_is_longer_than_a_reader_reads_at_once():
    assert {file.name: _lines(file) for file in CODE if _lines(file) > MOST_LINES} == {}


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_scripts_can_import_our_packages():
    """An installation has `lorta` alone on its path; `lorta.config` lets the others be imported."""
    for file in (ROOT / "scripts").glob("*.py"):
        imported = re.findall(r"^(?:from|import) (lorta\.config|baselines|experiments)\b", file.read_text(), re.M)
        assert imported[:1] in ([], ["lorta.config"]), f"{file.name}: import lorta.config first"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.relative_to(ROOT).as_posix())
def test_every_package_says_what_it_holds(package):
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), f"{package}: no docstring"


def test_no_value_is_called_by_how_it_came():
    """The name says what a value is, so `found` is none."""
    named = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if "found" in (getattr(node, "id", None), getattr(node, "arg", None))
    ]
    assert named == []


@pytest.mark.parametrize("package", [one for one in PACKAGES if one.parent == ROOT / "lorta"], ids=lambda one: one.name)
def test_every_package_has_a_folder_of_tests(package):
    assert list((ROOT / "tests" / package.name).rglob("test_*.py")), f"no tests/{package.name}/test_*.py"


def test_scripts_are_thin():
    assert [file.name for file in (ROOT / "scripts").glob("*.py") if _lines(file) > 90] == []
