"""Which recipes are for which tables of the paper, and the command `lorta recipes`. No torch, no Hydra.

A recipe says it itself: `recipe: {tables: [...], needs: ...}` in its file below conf/experiment; those of other sweeps
have no such table.
"""

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorta.analysis.published import load
from lorta.config.places import CONF
from lorta.config.yaml_files import read_mapping

PAPER = "lorta"  # the ledger that `tables` name, and the folder of the recipes of its own size
UNABLE = "no recipe: docs/reproduce.md says why"


@dataclass(frozen=True)
class Recipe:
    """One recipe: `name` is what experiment= takes, `tables` are those of results/published/lorta.yaml."""

    name: str
    tables: tuple[str, ...]
    needs: str


def recipes(conf: Path = CONF) -> list[Recipe]:
    """Return the recipes of the paper's tables, by name. Raises ValueError for one whose `recipe` is not as above."""
    known: list[Recipe] = []
    for file in sorted((conf / "experiment").glob("**/*.yaml")):
        said = read_mapping(file).get("recipe")
        if said is None:
            continue
        if set(said) != {"tables", "needs"} or not said["tables"]:
            raise ValueError(f"{file}: `recipe` needs tables and needs, got {', '.join(said)}.")
        name = file.relative_to(conf / "experiment").with_suffix("").as_posix()
        known.append(Recipe(name, tuple(said["tables"]), str(said["needs"])))
    return known


def find(word: str, known: Sequence[Recipe], tables: Sequence[str]) -> Recipe:
    """Return the recipe of a table, or the one of that name. Raises ValueError with the remedy where there is none."""
    full_size = [recipe for recipe in known if recipe.name.startswith(f"{PAPER}/")]
    for recipe in known:
        if word == recipe.name or (recipe in full_size and word in recipe.tables):
            return recipe
    if word in tables:
        raise ValueError(f"{word}: {UNABLE}.")
    names = [*tables, *(recipe.name for recipe in known)]
    near = difflib.get_close_matches(word, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`lorta recipes` lists them."
    raise ValueError(f"{word}: no table of the paper and no recipe; {hint}")


def listing(known: Sequence[Recipe], tables: Sequence[str]) -> list[str]:
    """Return a line for each table of the paper, and one for each recipe of it with what it needs."""
    lines: list[str] = []
    for table in tables:
        own = [recipe for recipe in known if table in recipe.tables]
        lines += [table, *(f"  {recipe.name:28s} {recipe.needs}" for recipe in own)]
        if not own:
            lines.append(f"  {UNABLE}")
    return lines


def declare(parser: argparse.ArgumentParser) -> None:
    """Take the name of a table or a recipe, or nothing for a list of all."""
    parser.add_argument("table", nargs="?", help="a table of the paper, or a recipe of conf/experiment (default: all)")


def run(parsed: argparse.Namespace) -> None:
    """Print all tables with their recipes, or one recipe's name and tables in one line, for scripts/reproduce.sh."""
    known, tables = recipes(), list(load(PAPER).tables)
    if parsed.table is None:
        print(*listing(known, tables), sep="\n")
    else:
        recipe = find(parsed.table, known, tables)
        print(recipe.name, *recipe.tables)
