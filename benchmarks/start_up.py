"""Print the processor time of one short run and of its plan, and its costliest imports; of another checkout, too.

python -m benchmarks.start_up [CHECKOUT]    (CHECKOUT/.venv/bin/python is used where it is there)
"""

import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processor_time import ROOT, cost, python_of

RUN = ("adapter=lorta", "task=glue/rte", "trainer=smoke")
REPEATS = 3
SHOWN = 10
LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")
PARTS_OF_TORCH = ("torch._dynamo", "torch._inductor", "torch.distributed", "torch.fx", "torch._functorch")


def seconds(checkout: Path, words: Sequence[str]) -> float:
    """Return the median processor time of a command line of Python, each time with an empty store."""
    taken: list[float] = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
            taken.append(cost([python_of(checkout), *words, *places], checkout).seconds)
    return statistics.median(taken)


def plan_words(checkout: Path) -> list[str]:
    """Return Python's words for `lorta plan`, which was in one file once."""
    module = "lorta.cli.main" if (checkout / "lorta" / "cli").is_dir() else "lorta.cli"
    return ["-c", f"import sys; from {module} import main; sys.exit(main())", "plan", *RUN]


def imports(checkout: Path) -> Counter[str]:
    """Return package -> milliseconds of wall time for the modules of its own, in all processes of a run together."""
    with tempfile.TemporaryDirectory() as folder:
        places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
        command = [python_of(checkout), "-X", "importtime", "run.py", *RUN, *places]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    microseconds: Counter[str] = Counter()
    for line in LINE.finditer(done.stderr):
        microseconds[package(line[2])] += int(line[1])
    return Counter({name: round(spent / 1000) for name, spent in microseconds.items()})


def package(module: str) -> str:
    """Return the package of a module; torch is told by its large parts."""
    part = next((part for part in PARTS_OF_TORCH if module == part or module.startswith(f"{part}.")), None)
    top = module.partition(".")[0]
    return part or ("Python's own" if top in sys.stdlib_module_names else top)


def main() -> None:
    """Measure this checkout and the one that is named."""
    checkouts = [ROOT, *map(Path, sys.argv[1:2])]
    columns = ["this build", "the other"][: len(checkouts)]
    rows = {
        "run.py, s": [f"{seconds(checkout, ['run.py', *RUN]):.2f}" for checkout in checkouts],
        "lorta plan, s": [f"{seconds(checkout, plan_words(checkout)):.2f}" for checkout in checkouts],
    }
    tables = [imports(checkout) for checkout in checkouts]
    rows["all imports, ms"] = [str(table.total()) for table in tables]
    for name, _ in tables[-1].most_common(SHOWN):
        rows[f"{name}, ms"] = [str(table[name]) for table in tables]
    print(f"| {' '.join(RUN)} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
