"""Libraries that others import wherever they are installed, although few runs use them. No torch."""

import sys

BITSANDBYTES = "bitsandbytes"  # by PEFT, and with it torch's compiler: a sixth of all imports
WANDB = "wandb"  # by TRL: 0.9 seconds of processor time
ALL = (BITSANDBYTES, WANDB)


def leave_out(library: str) -> None:
    """Make a library impossible to import in this process, for good, unless it is in memory already."""
    sys.modules.setdefault(library, None)  # pyright: ignore[reportArgumentType]: None is how Python forbids an import


def require(library: str, needed_by: str) -> None:
    """Raise RuntimeError where the library was left out: others would take it for one that is not installed."""
    if sys.modules.get(library, sys) is None:
        raise RuntimeError(
            f"{needed_by}: this process was begun without {library}, for runs that do not use it: "
            "start the command again"
        )
