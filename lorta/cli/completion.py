"""`lorta completion install bash`: the Tab key completes commands, options, settings and runs, by argcomplete."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")
OURS = "argcomplete"  # a word of every file that is written here, in small or capital letters
CALLED = "_ARGCOMPLETE"  # set by the shell's function when the Tab key is pressed


def declare(parser: argparse.ArgumentParser) -> None:
    """Take what to do and the shell."""
    parser.add_argument("action", choices=("install", "show"), help="write the shell's file, or print it")
    parser.add_argument("shell", choices=SHELLS)


def run(parsed: argparse.Namespace) -> None:
    """Write or print what the shell reads. Raises ValueError for a file of somebody else's."""
    from argcomplete.shell_integration import shellcode

    text = shellcode(["lorta"], shell=parsed.shell)
    if parsed.action == "show":
        print(text)
        return
    file = place(parsed.shell)
    if file.exists() and OURS not in file.read_text(encoding="utf-8").lower():
        raise ValueError(f"{file} is of another program: move it away, or give the output of `lorta completion show`")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    needs = {
        "bash": " (bash reads it where its package bash-completion is installed)",
        "zsh": f" (in ~/.zshrc, before compinit: fpath=({file.parent} $fpath))",
    }
    print(f"written: {file}: it is read by new shells{needs.get(parsed.shell, '')}")


def place(shell: str) -> Path:
    """Return the file where a shell looks for the completion of `lorta`."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "lorta",
        "zsh": data / "zsh" / "site-functions" / "_lorta",
        "fish": config / "fish" / "completions" / "lorta.fish",
    }[shell]


def typed_words() -> list[str]:
    """Return the words behind `lorta` on the line that is being completed."""
    return os.environ.get("COMP_LINE", "").split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Print what can follow to the shell, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser, default_completer=by_name)  # pyright: ignore[reportArgumentType]: any function will do


def by_name(prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **more: Any) -> Iterable[str]:
    """Return settings, ids of runs or files that begin so, as the name of the command's argument tells."""
    from argcomplete.completers import FilesCompleter

    if action.dest in ("overrides", "words"):
        return overrides(prefix)
    if action.dest in ("run", "ids"):
        return run_ids(prefix, parsed_args)
    return FilesCompleter()(prefix, action=action, parsed_args=parsed_args, **more)


def overrides(prefix: str) -> list[str]:
    """Return the settings that begin so: `ada` gives adapter=, `adapter=lora,ver` gives adapter=lora,vera.

    Example:
        >>> overrides("adapter=lora,ver")
        ['adapter=lora,vera']
    """
    from lorta.config.choices import group_options
    from lorta.config.places import CONF

    groups, (group, equals, value) = group_options(CONF), prefix.partition("=")
    if not equals:
        return [f"{name}=" for name in groups if name.startswith(prefix)]
    before, comma, last = value.rpartition(",")
    return [f"{group}={before}{comma}{name}" for name in groups.get(group, ()) if name.startswith(last)]


def run_ids(prefix: str, parsed_args: argparse.Namespace) -> list[str]:
    """Return the ids of a store that begin so."""
    root = Path(getattr(parsed_args, "runs", None) or "runs")
    return sorted(folder.name for folder in root.glob(f"{prefix}*") if (folder / "record.json").is_file())
