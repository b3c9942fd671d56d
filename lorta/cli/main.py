"""The command `lorta`: one word per task, each imported when it is called, so that --help costs no torch.

A later command is a `Command` more in COMMANDS. Runs and sweeps are `python run.py`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lorta.cli import drift as drift_command
from lorta.cli import recipes
from lorta.cli import report as page_command
from lorta.cli import sweep as commands
from lorta.cli import table as table_command


class Command(NamedTuple):
    """One subcommand."""

    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]  # the exit status; ValueError, OSError: a sentence for bad input


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a wrong command line or bad input, or what it says."""
    parsed = _parser().parse_args(arguments)
    try:
        return COMMANDS[parsed.command].run(parsed) or 0
    except (ValueError, OSError) as error:
        print(f"lorta {parsed.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lorta", description="Plan and follow sweeps; work on trained adapters.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.declare(commands.add_parser(name, help=command.help, description=command.help))
    return parser


def _declare_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", help="folder of a saved LoRTA adapter")
    _declare_folders(parser)


def _declare_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", help="folder of a saved LoRA on q, k, v, o or some of them")
    _declare_folders(parser)
    parser.add_argument("--rank", type=int, required=True, help="rank of the LoRTA")
    parser.add_argument("--head-side", choices=("natural", "input", "output"), default="natural")
    parser.add_argument("--restarts", type=int, default=4, help="starts; the best is kept (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random starts (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=1000, help="at most, a start (default: %(default)s)")


def _declare_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", help="the base model's folder or config.json, if the adapter does not name it")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where to write the new adapter")


def _export(parsed: argparse.Namespace) -> None:
    from lorta.tuner.export import export_folder

    config = export_folder(parsed.adapter, parsed.to, parsed.base)
    ranks = sorted({config.r, *(config.rank_pattern or {}).values()})
    rank = ", ".join(str(rank) for rank in ranks)
    print(f"{parsed.to}: LoRA of rank {rank} on {len(config.target_modules or ())} modules")


def _fit(parsed: argparse.Namespace) -> None:
    from lorta.tuner.fit import FitSettings, fit_folder

    settings = FitSettings(parsed.rank, parsed.head_side, parsed.restarts, parsed.seed, parsed.sweeps)
    config, fit = fit_folder(parsed.lora, parsed.to, settings, parsed.base)
    geometry = config.geometry or {}
    print(f"{parsed.to}: LoRTA of rank {config.r}, {sum(factor.numel() for factor in fit.factors.values())} parameters")
    print(f"relative residual {fit.residual:.3e} after {fit.sweeps} sweeps; by layer and matrix:")
    print("layer", *(f"{role:>10}" for role in geometry["roles"]))
    for layer, row in zip(geometry["layers"], fit.slices.tolist(), strict=True):
        print(f"{layer:5d}", *(f"{value:10.3e}" for value in row))


COMMANDS = {
    "export": Command("Write a LoRTA adapter as an ordinary LoRA checkpoint, exactly.", _declare_export, _export),
    "plan": Command("Show what a sweep would run, and at what cost.", commands.declare_overrides, commands.plan),
    "status": Command("Show how far a sweep, or a whole store, is.", commands.declare_store, commands.status),
    "retry": Command("Run again what failed in a sweep.", commands.declare_retry, commands.retry),
    "collect": Command("Export a sweep's records.", commands.declare_collect, commands.collect),
    "drift": Command("Check whether canaries come out as recorded.", drift_command.declare, drift_command.run),
    "fit": Command("Write the nearest LoRTA of a rank to a LoRA checkpoint.", _declare_fit, _fit),
    "table": Command(
        "Make reports of runs, and the tables of papers beside our runs.", table_command.declare, table_command.run
    ),
    "report": Command("Make one HTML page of tables, plots and records.", page_command.declare, page_command.run),
    "recipes": Command("List the tables of the paper with their recipes.", recipes.declare, recipes.run),
}
