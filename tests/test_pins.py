"""One set of pins: lock, conda environment and pyproject agree with each other and with what is installed."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def lock() -> dict[str, str]:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [item for extra in project["optional-dependencies"].values() for item in extra]
    return [Requirement(item) for item in [*project["dependencies"], *extras]]


def test_conda_users_get_the_locked_versions():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [item["pip"] for item in dependencies if isinstance(item, dict)]
    pins = [item for item in pip if item != "-e ."]
    assert {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)} == lock()
    assert "python=3.11" in dependencies


def test_every_declared_requirement_is_locked_within_its_range():
    pins = lock()
    wrong = [str(item) for item in declared() if pins.get(canonicalize_name(item.name), "0") not in item.specifier]
    assert wrong == []


def test_what_runs_is_what_is_locked():
    pins = lock()
    installed = {
        name: metadata.version(name).partition("+")[0] for name in ("torch", "transformers", "peft", "hydra-core")
    }
    assert {name: pins[name] for name in installed} == installed


def test_the_lock_names_no_host_and_no_file():
    assert re.search(r"://|@ |/", (ROOT / "requirements.lock").read_text().split("\n", 1)[1]) is None


def test_ci_calls_the_test_command_of_the_readme():
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()[-1]
