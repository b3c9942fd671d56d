"""Environments that hold the wheel, and of all that is installed here only what the wheel's metadata asks for."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make(folder: Path, wheel: Path, extra: str = "") -> Path:
    """Install the wheel, and `extra` of it, into a new environment and return its site-packages.

    Dependencies are links to what is installed here: nothing else can be imported, and nothing is downloaded.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (lorta,) = metadata.distributions(path=[str(site)])
    for distribution in required(lorta, extra):
        for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return site


def required(distribution: metadata.Distribution, extra: str = "") -> list[metadata.Distribution]:
    """Return the distributions that one needs, directly or not. Raises PackageNotFoundError for one that is absent."""
    met: dict[tuple[str, str], metadata.Distribution] = {}
    todo = _requirements(distribution, extra)
    while todo:
        requirement = todo.pop()
        for wanted in ("", *requirement.extras):
            key = canonicalize_name(requirement.name), wanted
            if key not in met:
                met[key] = metadata.distribution(requirement.name)
                todo += _requirements(met[key], wanted)
    return list(met.values())


def _requirements(distribution: metadata.Distribution, extra: str) -> list[Requirement]:
    requirements = [Requirement(line) for line in distribution.requires or ()]
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})]


def call(command: list[str | Path], folder: Path, status: int = 0) -> str:
    """Run a command in a folder, with nothing of this process's paths, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not re.match("PYTHON|VIRTUAL_ENV", name)}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr
