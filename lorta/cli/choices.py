"""`lorta list adapters | tasks | models | recipes`: what a command line can choose, with the first line of its file."""

import argparse
from itertools import takewhile

from lorta.config.choices import group_file, group_options
from lorta.config.places import CONF

GROUPS = {
    "adapters": "adapter",
    "tasks": "task",
    "models": "model",
    "recipes": "experiment",
    "trainers": "trainer",
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Take the kind of choices."""
    parser.add_argument("kind", choices=GROUPS, help="what to list")
    parser.add_argument("--conf", metavar="FOLDER", help="search FOLDER/adapter/NAME.yaml, FOLDER/task/NAME.yaml too")


def run(parsed: argparse.Namespace) -> None:
    """Print each name with what its file says first."""
    group = GROUPS[parsed.kind]
    names = group_options(CONF)[group]
    width = max(map(len, names))
    for name in names:
        lines = group_file(CONF, group, name).read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
        said = next((comment for comment in comments if not comment.startswith("@package")), "")
        print(f"{group}={name:{width}s}  {said}".rstrip())
