"""Where the base model of `lorta export` and `lorta fit` lies, told before torch is imported. Needs no harness."""

import re
from difflib import get_close_matches
from pathlib import Path

import yaml

from lorta.config.places import CONF, own_folders, package_places
from lorta.models.gguf import is_gguf, plain_folder
from lorta.models.hub import ELSEWHERE, fetch, require_file
from lorta.models.hub_cache import HubFile

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
GIVE = "give the folder of the base model (--base FOLDER)"


def base_place(given: str | None, named: str | None, revision: str | None, adapter: str) -> str:
    """Return the folder, config.json or hub repository of a base model.

    Args:
        given: what --base says: a folder, a config.json, a file of conf/model by name, or a hub repository.
        named: what the saved adapter says, which is asked where nothing is given.
        revision: of `named`, on a hub.
        adapter: folder of the saved adapter.

    Raises:
        ValueError: there is no such model here, nor on the hub; or nobody names one.
    """
    name = given or named
    if not name:
        raise ValueError(f"{adapter}: the adapter does not name its base model: {GIVE}")
    what = f"--base {name}" if given else f"{adapter}: the base model {name}, which it names,"
    place = Path(name).expanduser()
    if place.is_dir() and not (place / "config.json").is_file():
        raise ValueError(f"{what} is a folder without a config.json: {GIVE}")
    if place.exists():
        return str(place)
    choices = {file.stem: file for folder in (CONF, *own_folders()) for file in folder.glob("model/*.yaml")}
    if name in choices:
        return _of_choice(what, name, choices[name])
    if not REPOSITORY.fullmatch(name):
        raise ValueError(f"{what} is no folder here and no name in conf/model{_near(name, list(choices))}: {GIVE}")
    try:
        require_file(what, f"hf download {name}", HubFile(name, "config.json", (not given and revision) or "main"))
    except ValueError as error:
        raise ValueError(str(error).replace(ELSEWHERE, GIVE)) from error
    return name


def _near(name: str, choices: list[str]) -> str:
    close = [] if "/" in name else get_close_matches(name, choices, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _of_choice(what: str, name: str, file: Path) -> str:
    """Return the place that a file of conf/model says."""
    node = yaml.safe_load(file.read_text(encoding="utf-8"))
    path, hub_id, revision = (node.get(key) for key in ("path", "hub_id", "revision"))
    for place in package_places(path) if path else []:
        if place.is_dir():
            return str(place)
        if place.is_file() and is_gguf(str(place)):
            return str(plain_folder(place, name).folder)
    if hub_id is None:
        says = f"model.path={path}, which is not installed here" if path else "no place of its own"
        raise ValueError(f"{what}: {file.name} says {says}: {GIVE}")
    try:
        remedy = f"hf download {hub_id} --revision {revision}"
        return str(fetch(what, remedy, HubFile(hub_id, "config.json", revision or "main")).parent)
    except ValueError as error:
        raise ValueError(str(error).replace(ELSEWHERE, GIVE)) from error
