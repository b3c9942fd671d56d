"""Where the files lie that come with the package: at the top of a checkout, and inside the package in a wheel.

A wheel holds `conf`, `results/published`, `requirements.lock`, `baselines` and `experiments` in `lorta/_shipped`
(setup.py), so that it puts no other name beside `lorta` into site-packages. Importing `lorta.config` makes the two
packages importable under their own names, which YAML files and records use.
"""

import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "_shipped"
CHECKOUT = None if SHIPPED.is_dir() else PACKAGE.parent
ROOT = CHECKOUT or SHIPPED
CONF = ROOT / "conf"
RESULTS = ROOT / "results"
OWN = "LORTA_CONF"  # folders of the user's own adapters, tasks and their code, as PATH writes a list; --conf sets it


def make_importable() -> None:
    """Let `baselines`, `experiments` and own modules be imported: last on the path, where they hide nobody's packages.

    Workers and Slurm's jobs get own folders with the environment.
    """
    sys.path += [folder for folder in map(str, (ROOT, *own_folders())) if folder not in sys.path]


def package_places(path: str) -> list[Path]:
    """Return where a path or `package:NAME/PLACE` may lie; nothing for a package that is not installed."""
    if not path.startswith("package:"):
        return [Path(path).expanduser()]
    package, _, below = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    return [Path(root) / below for root in (spec.submodule_search_locations or [])] if spec else []


def own_folders() -> tuple[Path, ...]:
    """Return the folders that hold a user's own adapter/NAME.yaml, task/NAME.yaml and their Python files."""
    return tuple(Path(folder) for folder in os.environ.get(OWN, "").split(os.pathsep) if folder)


def add_own_folder(folder: str) -> None:
    """Search a folder, too, in this process and those that it starts. Raises ValueError when it is none."""
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ValueError(f"--conf {folder}: no such folder")
    if os.pathsep in str(path):
        raise ValueError(f"--conf {folder}: a path with '{os.pathsep}' cannot be searched: rename it")
    if path not in own_folders():
        os.environ[OWN] = os.pathsep.join(map(str, (*own_folders(), path)))
    make_importable()
