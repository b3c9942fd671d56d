"""Files and functions stay small, and nothing is called utils."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = [
    ROOT / "run.py",
    *(
        file
        for folder in ("lorta", "baselines", "experiments", "benchmarks", "scripts")
        for file in (ROOT / folder).rglob("*.py")
    ),
]


def test_files_are_under_300_lines():
    assert [file.name for file in CODE if len(file.read_text().splitlines()) > 300] == []


def test_functions_are_under_30_lines():
    """A body of 30 lines; signature and docstring are not counted."""
    long = []
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > 30:
                    long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines")
    assert long == []


def test_scripts_are_thin():
    assert [file.name for file in (ROOT / "scripts").glob("*.py") if len(file.read_text().splitlines()) > 80] == []


def test_nothing_is_called_utils():
    assert [file for file in CODE if "util" in file.stem] == []
