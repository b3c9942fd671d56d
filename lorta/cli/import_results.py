"""`lorta import peft PATH` and `lorta import lm_eval PATH`: runs of others as records of a store.

    lorta import peft peft/method_comparison/MetaMathQA/results --runs theirs
    lorta import lm_eval out --runs theirs
    lorta table --runs theirs

PATH is a result file or a folder of them. Everything is checked before anything is written. Imported records say where
they come from, share no table with runs made here, and never count as done in a sweep.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorta.imports.building import ImportedRun

FORMATS = ("peft", "lm_eval")


def declare(parser: argparse.ArgumentParser) -> None:
    """Take a format, paths and the store."""
    parser.add_argument("format", choices=FORMATS, help="PEFT's method_comparison, or lm-evaluation-harness")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a result file, or a folder of them")
    choice = parser.add_argument_group("of lm_eval, whose files do not say it")
    choice.add_argument("--name", help="of the adapter (default: its folder's name)")
    choice.add_argument("--seed", type=int, help="of its training (default: the seed of the evaluation)")
    choice.add_argument("--model", help="the backbone of merged checkpoints, which are then rows of one table")
    choice.add_argument("--metric", help="such as acc_norm (default: the first of each task)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")


def run(parsed: argparse.Namespace) -> None:
    """Write the records. Raises ValueError, with nothing written, for what is no result of the format."""
    from lorta.imports.building import into_store
    from lorta.records.store import Store

    runs = [one for path in parsed.paths for one in _read(parsed, path)]
    new, before = into_store(runs, Store(parsed.runs))
    there = f", {before} were there before" if before else ""
    print(f"{new} runs imported into {parsed.runs}{there}: lorta table --runs {parsed.runs}")


def _read(parsed: argparse.Namespace, path: Path) -> "list[ImportedRun]":
    from lorta.imports import lm_eval_results, peft_results

    given = {name: getattr(parsed, name) for name in ("name", "seed", "model", "metric")}
    if parsed.format == "lm_eval":
        return lm_eval_results.read_results(path, lm_eval_results.Choice(**given))
    if extra := [f"--{name}" for name, value in given.items() if value is not None]:
        raise ValueError(f"{', '.join(extra)}: results of method_comparison say it themselves, leave it out")
    return peft_results.read_results(path)
