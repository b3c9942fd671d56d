"""`--conf FOLDER`: a user's own adapters, tasks and experiments, searched beside those of the package."""

from collections.abc import Sequence

from lorta.config.places import CONF, add_own_folder

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
        from lorta.config.compose import group_options

        group_options(CONF)
    return left
