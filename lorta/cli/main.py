"""The command `lorta`: one word per task, each imported when it is called, so that --help costs no torch.

A later command is a `Command` more in COMMANDS. `lorta run` is `python run.py`: it takes Hydra's words and flags.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from lorta import __version__
from lorta.system.terminal import print_anything, print_nothing_more

BENCH = {  # what the extra `bench` adds to PEFT's own requirements: package -> the module to import
    "datasets": "datasets",
    "evaluate": "evaluate",
    "hydra-core": "hydra",
    "itables": "itables",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "pebble": "pebble",
    "plotly": "plotly",
    "pydantic": "pydantic",
    "rich": "rich",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "sentencepiece": "sentencepiece",
    "simpleeval": "simpleeval",
    "trl": "trl",
    "wandb": "wandb",
}


class Command(NamedTuple):
    """One subcommand: a function that declares its options on a parser, and one that runs it, in `lorta.cli.MODULE`.

    That one returns the exit status or None, and raises ValueError or OSError with a sentence for bad input.
    """

    help: str
    module: str
    run: str = "run"
    declare: str = "declare"
    of_harness: bool = True


COMMANDS = {
    "run": Command("Run what is missing of a sweep, and print its table; as python run.py.", "run"),
    "plan": Command("Show what a sweep would run, and at what cost.", "sweep", "plan", "declare_overrides"),
    "status": Command("Show how far a sweep, or a whole store, is.", "sweep", "status", "declare_store"),
    "retry": Command("Run again what failed in a sweep.", "sweep", "retry", "declare_retry"),
    "collect": Command("Export a sweep's records.", "sweep", "collect", "declare_collect"),
    "restore": Command("Take committed records into a store, so that they count as done.", "restore"),
    "table": Command("Make reports of runs, and the tables of papers beside our runs.", "table"),
    "report": Command("Make one HTML page of tables, plots and records.", "report"),
    "recipes": Command("List the tables of the paper with their recipes.", "recipes"),
    "drift": Command("Check whether reference runs still give the recorded numbers.", "drift"),
    "export": Command(
        "Write an adapter as an ordinary LoRA checkpoint: LoRTA exactly, others by singular values.",
        "adapters",
        "export",
        "declare_export",
        False,
    ),
    "fit": Command("Write the nearest LoRTA of a rank to a LoRA checkpoint.", "adapters", "fit", "declare_fit", False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a wrong command line or bad input, or what it says."""
    print_anything()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words and words[0] in COMMANDS else None
    if name is not None and COMMANDS[name].of_harness and (absent := missing()):
        print(
            f"lorta {name}: the benchmark harness is not installed, {', '.join(absent)} cannot be imported: "
            f"pip install 'lorta[bench]'.",
            file=sys.stderr,
        )
        return 2
    if name == "run":
        from lorta.cli.run import main as run

        return run(words[1:], "lorta run")
    if name is not None and COMMANDS[name].of_harness:
        from lorta.cli.own_folders import take_own_folders

        try:
            words = take_own_folders(words)
        except ValueError as error:
            print(f"lorta {name}: {error}", file=sys.stderr)
            return 2
    parsed = _parser(name).parse_args(words)
    command = COMMANDS[parsed.command]
    try:
        status = getattr(import_module(f"lorta.cli.{command.module}"), command.run)(parsed) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough, as in `lorta plan ... | head`
        print_nothing_more()
        return 1
    except (ValueError, OSError) as error:
        print(f"lorta {parsed.command}: {error}", file=sys.stderr)
        return 2


def missing() -> list[str]:
    """Return the packages of the extra `bench` that are not installed."""
    return [package for package, module in BENCH.items() if find_spec(module) is None]


def _parser(called: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the options of the one that is called."""
    parser = argparse.ArgumentParser(prog="lorta", description="Run and follow sweeps; work on trained adapters.")
    parser.add_argument("--version", action="version", version=f"lorta {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        of_one = commands.add_parser(name, help=command.help, description=command.help)
        if name == called:
            getattr(import_module(f"lorta.cli.{command.module}"), command.declare)(of_one)
    return parser
