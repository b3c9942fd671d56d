"""What the documents name exists: linked files and headings, paths, Python names, make targets."""

import ast
import re
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITTEN_BY_A_COMMAND = ("results/reports/",)
DOCUMENTS = [
    file
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "*/*/README.md")
    for file in sorted(ROOT.glob(pattern))
    if not file.relative_to(ROOT).as_posix().startswith((".", *WRITTEN_BY_A_COMMAND))
    and file.name != "CHANGELOG.md"  # tells of files of earlier days
]
FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = ("baselines", "benchmarks", "conf", "docs", "examples", "experiments", "lorta", "results", "scripts", "tests")
REPOSITORY_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]")
PYTHON_NAME = re.compile(r"(?<![\w./])(?:lorta|baselines|experiments)(?:\.\w+)+(?!\w*/)")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|[<>{}*]|(^|/)(x|a|latest)(\.|/|$)|\.\.\.")
MADE_LATER = ("docs/_build", "results/local", "results/reproduced", "results/mt_bench")


def ids(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def headings(file: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    lines = re.findall(r"^#+ (.+)$", FENCED.sub("", file.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("file", DOCUMENTS, ids=ids)
def test_every_link_leads_somewhere(file):
    missing = []
    for target in LINK.findall(FENCED.sub("", file.read_text())):
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = (file.parent / place).resolve() if place else file
        if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in headings(linked)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=ids)
def test_every_path_in_code_marks_exists(file):
    named = {path for code in CODE.findall(file.read_text()) for path in REPOSITORY_PATH.findall(code)}
    places = {path for path in named if not PLACEHOLDER.search(path) and not path.startswith(MADE_LATER)}
    assert sorted(path for path in places if not exists(path, file)) == []


def exists(path: str, document: Path) -> bool:
    """Return whether a path exists, from the root, the document's folder or the recipes; an ending may be left out."""
    folders = (ROOT, document.parent, ROOT / "conf" / "experiment")
    return any((folder / path).exists() or any(folder.glob(f"{path}.*")) for folder in folders)


@pytest.mark.parametrize("file", DOCUMENTS, ids=ids)
def test_every_python_name_in_code_marks_exists(file):
    named = {name for code in CODE.findall(file.read_text()) for name in PYTHON_NAME.findall(code)}
    assert sorted(name for name in named if not name.endswith(".yaml") and not defined(name)) == []


def defined(name: str) -> bool:
    """Return whether a dotted name is a package, a module, or something that its module defines or imports."""
    parts = name.split(".")
    packages = list(takewhile(lambda number: _module(parts[:number]) is not None, range(1, len(parts) + 1)))
    module = _module(parts[: len(packages)])
    rest = parts[len(packages) :]
    return module is not None and (not rest or rest[0] in names(module))


def _module(parts: list[str]) -> Path | None:
    place = ROOT.joinpath(*parts)
    if place.is_dir():
        return place / "__init__.py"
    return file if (file := place.with_suffix(".py")).is_file() else None


@cache
def names(module: Path) -> set[str]:
    defined_names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined_names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined_names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            defined_names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined_names.add(node.target.id)
    return defined_names


@pytest.mark.parametrize("file", DOCUMENTS, ids=ids)
def test_every_make_target_exists(file):
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = file.read_text()
    shown = [
        line for block in FENCED.findall(text) for line in re.findall(r"^make ([\w-]+)", block, flags=re.MULTILINE)
    ]
    assert {*shown, *re.findall(r"`make ([\w-]+)`", text)} - targets == set()
