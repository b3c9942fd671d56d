import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOPS = ("baselines", "conf", "experiments", "lorta", "scripts")
FILES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "environment.yml")
MORE = ("pyproject.toml", "requirements.lock", "run.py", "setup.py")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """The sdist of this checkout, made of a copy: what a build leaves behind would be in the next one."""
    place, made = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for folder in (*TOPS, "results/published"):
        shutil.copytree(ROOT / folder, place / folder, ignore=ignore)
    for file in (*FILES, *MORE):
        shutil.copy(ROOT / file, place / file)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(made)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True, capture_output=True)
    (archive,) = made.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    """The wheel that pip builds of the sdist."""
    made = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", *command, "--no-build-isolation", "-w", made, sdist], check=True)
    (archive,) = made.glob("*.whl")
    return archive
