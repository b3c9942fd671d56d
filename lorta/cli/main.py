"""The command `lorta`: one word per task, each imported when it is called, so that --help costs no torch.

A later command is a `Command` more in COMMANDS. `lorta run` is `python run.py`: it takes Hydra's words and flags.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from lorta import __version__
from lorta.cli.completion import CALLED, complete, typed_words
from lorta.system.collection import end_without_collection, rare_collections
from lorta.system.terminal import print_anything, print_nothing_more

BENCH = {  # what the extra `bench` adds to PEFT's own requirements: package -> the module to import
    "argcomplete": "argcomplete",
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

READING = ("plan", "status", "collect", "ls", "show", "diff", "rm", "list", "table", "report")  # they train nothing


class Command(NamedTuple):
    """One subcommand: a function that declares its options on a parser, and one that runs it, in `lorta.cli.MODULE`.

    That one returns the exit status or None, and raises ValueError or OSError with a sentence for bad input.
    """

    help: str
    module: str
    run: str = "run"
    declare: str = "declare"
    of_harness: bool = True
    examples: tuple[str, ...] = ()


COMMANDS = {
    "run": Command("Run what is missing of a sweep, and print its table; as python run.py.", "run"),
    "plan": Command(
        *("Show what a sweep would run, and at what cost.", "sweep", "plan", "declare_overrides"),
        examples=(
            "plan",
            "plan adapter=lora,lorta rank=4,8 task=glue",
            "plan adapter=lora,lorta budget=10k seed=0,1,2",
        ),
    ),
    "status": Command(
        *("Show how far a sweep, or a whole store, is.", "sweep", "status", "declare_store"),
        examples=("status", "status --runs runs", "status adapter=lora,lorta task=glue/rte"),
    ),
    "retry": Command(
        *("Run again what failed in a sweep.", "sweep", "retry", "declare_retry"),
        examples=("retry adapter=lora,lorta", "retry adapter=lora --kind oom", "retry task=glue --kind nan,timeout"),
    ),
    "collect": Command(
        *("Export a sweep's records.", "collect"),
        examples=("collect", "collect --runs runs --name mine", "collect --runs runs --results mine"),
    ),
    "ls": Command(
        *("List the runs of a store, the best of each task first.", "runs", "ls", "declare_ls"),
        examples=("ls", "ls adapter=lo* status=success", "ls task=glue/rte --sort time"),
    ),
    "show": Command(
        *("Show one run: settings, scores, losses, failure.", "runs", "show", "declare_show"),
        examples=("show ID", "show ID --runs runs", "show ID --runs=runs"),
    ),
    "diff": Command(
        *("Show in which settings and scores two runs differ.", "runs", "diff", "declare_diff"),
        examples=("diff ID ID", "diff ID ID --runs runs", "diff --runs runs ID ID"),
    ),
    "rm": Command(
        *("Remove runs from a store; it asks first.", "runs", "rm", "declare_rm"),
        examples=("rm status=failed", "rm adapter=vera seed=2 --yes", "rm id=0123* --runs runs"),
    ),
    "list": Command(
        *("List what can be chosen: adapters, tasks, models, recipes.", "choices"),
        examples=("list adapters", "list tasks", "list models"),
    ),
    "restore": Command(
        *("Take committed records into a store, so that they count as done.", "restore"),
        examples=(
            "restore results/records/minilm_study.jsonl",
            "restore results/records/*.jsonl*",
            "restore theirs.jsonl.gz --runs theirs",
        ),
    ),
    "import": Command(
        *("Take results of PEFT's method_comparison or lm_eval into a store.", "import_results"),
        examples=(
            "import peft peft/method_comparison/MetaMathQA/results --runs theirs",
            "import lm_eval out --runs theirs",
            "import lm_eval out --runs theirs --metric acc_norm",
        ),
    ),
    "table": Command(
        *("Make reports of runs, and the tables of papers beside our runs.", "table"),
        examples=("table", "table --tasks rte --columns parameters,scores", "table paper=lorta --runs runs"),
    ),
    "report": Command(
        *("Make one HTML page of tables, plots and records.", "report"),
        examples=(
            "report --to page.html",
            "report adapter=lora,vera --to page.html --title Methods",
            "report --runs runs --to page.html",
        ),
    ),
    "recipes": Command(
        *("List the tables of the paper with their recipes.", "recipes"),
        examples=("recipes", "recipes glue_base", "recipes tiny/glue_tensor"),
    ),
    "drift": Command(
        *("Check whether reference runs still give the recorded numbers.", "drift"),
        examples=("drift", "drift --if-changed", "drift --reference-runs results/reference_runs"),
    ),
    "completion": Command(
        *("Let the Tab key complete commands, settings and runs in bash, zsh or fish.", "completion"),
        examples=("completion install bash", "completion show zsh", "completion show fish"),
    ),
    "export": Command(
        "Write an adapter as an ordinary LoRA checkpoint: LoRTA exactly, others by singular values.",
        *("adapters", "export", "declare_export", False),
        (
            "export runs/ID/adapter --to lora",
            "export runs/ID/adapter --to lora --rank 8",
            "export runs/ID/adapter --to lora --residual 1e-3",
        ),
    ),
    "fit": Command(
        "Write the nearest LoRTA of a rank to a LoRA checkpoint.",
        *("adapters", "fit", "declare_fit", False),
        (
            "fit lora --to lorta --rank 8",
            "fit lora --to lorta --rank 8 --restarts 8",
            "fit lora --to lorta --rank 8 --seed 1",
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a wrong command line or bad input, or what it says."""
    if CALLED in os.environ:
        words = typed_words()
        complete(_parser(words[0] if words and words[0] in COMMANDS else None))
    print_anything()
    end_without_collection()
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
    with rare_collections() if name in READING else nullcontext():
        return _done(_parsed(name, words))


def _done(parsed: argparse.Namespace) -> int:
    """Run a command with its options and return the exit status."""
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


def _parsed(name: str | None, words: Sequence[str]) -> argparse.Namespace:
    """Return the options; overrides may stand before, between and behind them."""
    parser = _parser(name)
    parsed, rest = parser.parse_known_args(words)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(overrides) < len(rest) or (rest and not hasattr(parsed, "overrides")):
        parser.parse_args(words)  # which ends with the usual message
    if rest:
        parsed.overrides += overrides
    return parsed


def missing() -> list[str]:
    """Return the packages of the extra `bench` that are not installed."""
    return [package for package, module in BENCH.items() if find_spec(module) is None]


def _parser(called: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the options of the one that is called."""
    parser = argparse.ArgumentParser(prog="lorta", description="Run and follow sweeps; work on trained adapters.")
    parser.add_argument("--version", action="version", version=f"lorta {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        lines = "".join(f"\n  lorta {example}" for example in command.examples)
        of_one = commands.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=f"examples:{lines}" if lines else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called == "run":  # for the Tab key alone: Hydra reads its words
            of_one.add_argument("overrides", nargs="*")
        elif name == called:
            getattr(import_module(f"lorta.cli.{command.module}"), command.declare)(of_one)
    return parser
