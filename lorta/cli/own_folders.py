"""Folders of a user's own: `--conf FOLDER` has adapters, tasks and experiments, `--code FOLDER` code for a record's.

`--conf` is searched beside the package's files. Of a record, which may come from elsewhere, no other code is run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lorta.config.places import CONF, add_own_folder, own_folders

FLAG = "--conf"


def take_own_folders(words: Sequence[str]) -> list[str]:
    """Add the folders that a command line names, and return its other words.

    Raises ValueError for what is no folder, and for a file in it with the name of one that is there already.
    """
    left: list[str] = []
    rest, named = iter(words), False
    for word in rest:
        flag, equals, folder = word.partition("=")
        if flag != FLAG:
            left.append(word)
            continue
        folder = folder if equals else next(rest, "")
        if not folder:
            raise ValueError(f"{FLAG}: a folder is needed, with adapter/NAME.yaml or task/NAME.yaml in it")
        add_own_folder(folder)
        named = True
    if named:
        from lorta.config.choices import group_options

        groups = group_options(CONF)
        for folder in own_folders():
            _require_groups(folder, list(groups))
    return left


def _require_groups(folder: Path, groups: Sequence[str]) -> None:
    """Raise ValueError for a folder in which nothing would be found, with the one above or below that was meant."""
    if any(folder.glob("*.py")) or any(any((folder / group).glob("**/*.yaml")) for group in groups):
        return
    near = [folder.parent] if folder.name in groups else []
    near += sorted(file.parents[1] for group in groups for file in folder.glob(f"*/{group}/*.yaml"))
    meant = f": did you mean {FLAG} {near[0]}?" if near else ""
    raise ValueError(f"{FLAG} {folder}: there is no adapter/NAME.yaml, task/NAME.yaml or the like in it{meant}")


def declare_code(parser: argparse.ArgumentParser) -> None:
    """Take the folders whose code a record may name."""
    parser.add_argument(
        "--code",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="a folder whose packages a record's settings may name, beside the project's own (may be repeated)",
    )
