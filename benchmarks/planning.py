"""Print the processor time and memory of planning sweeps and of refusing them, in this checkout and another one.

python -m benchmarks.planning [--beside CHECKOUT] [OVERRIDE ...]    (with CHECKOUT/.venv/bin/python, where it is there)
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.processor_time import ROOT, Cost, cost, python_of

SMALL = ("adapter=head_only,lora,vera,loretta_rep,lorta", "rank=4,8", "task=glue", "seed=0,1,2")
LARGE = ("adapter=lora,lorta", "rank=4,8,16,32,64", "task=glue/rte", "seed=range(0,1000)")
ALL = ("adapter=glob(*)", "task=glob(glue/*)", "seed=range(0,10)")
GRIDS = {
    "one run": ("adapter=lorta", "task=glue/rte"),
    "240 runs": SMALL,
    "10,000 runs": LARGE,
    "10,000 runs, a wrong rank": (*LARGE[:1], "rank=4,8,16,32,no", *LARGE[2:]),
    "every adapter and task, a wrong adapter": ("adapter=glob(*),lorra", *ALL[1:]),
    "every adapter and task, a wrong key": (*ALL, "trainer.learning_rat=0.1"),
}
REPEATS = 3
PLAN = """
import sys
from importlib import import_module
from pathlib import Path
try:
    planner = import_module("lorta.planning.planner")
except ImportError:  # before there was a package for planning
    planner = import_module(f"lorta.{'harness'}.sweep")
planner.make_plan(sys.argv[1:], True, Path("conf").resolve())
assert "torch" not in sys.modules
"""


def measured(checkout: Path, overrides: tuple[str, ...], repeats: int) -> Cost:
    """Return the medians of planning in fresh processes."""
    command = [python_of(checkout), "-c", PLAN, *overrides]
    costs = [cost(command, checkout) for _ in range(repeats)]
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def main() -> None:
    """Plan and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="one grid of your own")
    options = parser.parse_args()
    checkouts = [ROOT, *([options.beside] if options.beside else [])]
    columns = ["this build: s", "MiB", "the other: s", "MiB"][: 2 * len(checkouts)]
    print(f"| sweep | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    grids = {"as typed": tuple(options.overrides)} if options.overrides else GRIDS
    for name, overrides in grids.items():
        costs = [measured(checkout, overrides, options.repeats) for checkout in checkouts]
        cells = " | ".join(f"{one.seconds:.2f} | {one.mebibytes:.0f}" for one in costs)
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
