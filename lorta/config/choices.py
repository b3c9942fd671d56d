"""What can be chosen for each group of settings: the names of the files in conf/ and in the user's own folders."""

from functools import lru_cache
from pathlib import Path

from lorta.config.places import own_folders


def group_options(folder: Path) -> dict[str, list[str]]:
    """Return group -> names of its files, such as adapter -> [lora, ...] and task -> [glue, glue/rte, ...].

    Those of the user's own folders stand behind. Raises ValueError for an own file with the name of another.
    """
    return _group_options((folder, *own_folders()))


@lru_cache
def _group_options(folders: tuple[Path, ...]) -> dict[str, list[str]]:
    shipped = {file.relative_to(folders[0]).parts[0] for file in folders[0].glob("*/**/*.yaml")}
    places: dict[tuple[str, str], Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")):
            group, *path = file.relative_to(folder).with_suffix("").parts
            if group == "hydra" or group not in shipped:  # who runs, not what; or a file that is no configuration
                continue
            first = places.setdefault((group, "/".join(path)), file)
            if first != file:
                raise ValueError(f"{file}: {first} is also {group}={'/'.join(path)}: give yours another name")
    groups: dict[str, list[str]] = {}
    for group, name in places:
        groups.setdefault(group, []).append(name)
    return groups


def choice_words(folder: Path, group: str, name: str) -> str:
    """Return how a sentence names a choice: as it is typed, and a user's own with its file."""
    file = group_file(folder, group, name)
    return f"{group}={name}" if file.is_relative_to(folder) else f"{group}={name} ({file})"


def group_file(folder: Path, group: str, name: str) -> Path:
    """Return the file of a choice: in `folder`, or else in the first of the user's own folders that has it."""
    files = [place / group / f"{name}.yaml" for place in (folder, *own_folders())]
    return next((file for file in files if file.is_file()), files[0])
