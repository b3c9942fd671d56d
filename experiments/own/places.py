"""Which files of a user's folder are trained on and which are scored. No torch."""

from pathlib import Path
from typing import NamedTuple

from experiments.own.readers import READERS, ending

EVALUATION = ("validation", "valid", "val", "dev", "test")  # the first that is there is scored
NAMES = ("train", *EVALUATION)
ENDINGS = ", ".join(READERS)


class Files(NamedTuple):
    """The file of training rows and that of scored rows; without the latter, a part of the former is held out."""

    train: Path
    evaluation: Path | None
    unread: tuple[Path, ...] = ()  # data files of other splits


def own_files(root: str, holdout: int | float | None, split: str | None) -> Files:
    """Return the files below `root`, or `root` itself where it is the only file.

    Args:
        root: a folder or a file, as `data.root` says.
        holdout: which part of the only file is held out, between 0 and 1; None or a number where there are two files.
        split: the name of the scored file, None for the first of EVALUATION that is there.

    Raises:
        ValueError: nothing is there, or it is not clear what is meant.
    """
    place = Path(root).expanduser()
    if not (place.is_file() or place.is_dir()):
        raise ValueError(f"data.root={root}: no such file or folder")
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if ending(file) in READERS)
    if place.is_file() and ending(place) not in READERS:
        raise ValueError(f"data.root={root}: a file of texts ends in {ENDINGS} (text formats also in .gz)")
    if not files:
        raise ValueError(f"data.root={root}: no file that ends in {ENDINGS}; name two of them train and validation")
    named = _by_name(files, root)
    scored = [name for name in ([split] if split else EVALUATION) if name in named]
    if split and not scored:
        raise ValueError(f"task.evaluation_split={split}: data.root={root} has no such file; it has {_list(files)}")
    train = named.get("train") or (files[0] if len(files) == 1 else None)
    if train is None:
        raise ValueError(f"data.root={root}: which file is trained on? Name it train; there are {_list(files)}")
    if train == (named[scored[0]] if scored else None):
        raise ValueError(f"data.root={root}: {train.name} is the only file: name it train, and give data.holdout=0.1")
    return _checked(root, train, named[scored[0]] if scored else None, holdout, files)


def _by_name(files: list[Path], root: str) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        name = file.name.lower().partition(".")[0]
        if name in named and name in NAMES:
            raise ValueError(f"data.root={root}: {named[name].name} and {file.name} are both '{name}': remove one")
        named[name] = file
    return named


def _checked(root: str, train: Path, scored: Path | None, holdout: int | float | None, files: list[Path]) -> Files:
    if scored is None and isinstance(holdout, int):
        raise ValueError(
            f"data.holdout={holdout}: a number of rows is taken from training where there is a second file, to "
            f"choose settings by; of {train.name} alone give a fraction, such as data.holdout=0.1 for a tenth"
        )
    if scored is None and holdout is None:
        raise ValueError(
            f"data.root={root}: {train.name} has no file beside it to score: add validation{ending(train)}, "
            "or hold a tenth of its rows out with data.holdout=0.1"
        )
    if scored is not None and isinstance(holdout, float):
        raise ValueError(
            f"data.holdout={holdout}: a fraction is for a single file, and data.root={root} has {train.name} and "
            f"{scored.name}: leave it out, or give data.root={train}"
        )
    return Files(train, scored, tuple(file for file in files if file not in (train, scored)))


def _list(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:8]) + (", ..." if len(files) > 8 else "")
