"""`make unit`, the fast tests of tests/unit.txt: enough of them, and none with a process, a model or a browser."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "tests" / "unit.txt").read_text().split()
PATHS = [ROOT / line for line in LINES if not line.startswith("--")]
LEFT_OUT = [line.partition("=")[2] for line in LINES if line.startswith("--")]
LEAST_TESTS = 1000
SLOW = re.compile(r"\bPopen\b|chromium|playwright|slurmctld|get_peft_model|from_pretrained|\.attach\(", re.IGNORECASE)


def files() -> list[Path]:
    listed = {file for path in PATHS for file in ([path] if path.is_file() else path.rglob("test_*.py"))}
    return sorted(file for file in listed if file.relative_to(ROOT).as_posix() not in LEFT_OUT)


def test_the_fast_tests_are_at_least_a_thousand(request):
    collected = [item for item in request.session.items if item.path in set(files())]
    if {item.path for item in collected} != set(files()):
        pytest.skip("only a part of the fast tests was collected: make unit")
    assert sum(item.nodeid not in LEFT_OUT for item in collected) >= LEAST_TESTS


@pytest.mark.parametrize("line", [*map(str, PATHS), *LEFT_OUT])
def test_every_line_names_something_that_exists(line):
    path, _, name = line.partition("::")
    assert (ROOT / path).exists()
    assert not name or f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_fast_test_starts_no_server_browser_or_model(file):
    used = set() if file == Path(__file__) else set(SLOW.findall(file.read_text()))
    assert not used, f"{file.name} uses {used}: take it out of tests/unit.txt"
