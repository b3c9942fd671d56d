"""Print the seconds of planning (composing, validating, signing) a sweep, and whether torch was imported.

python -m benchmarks.planning [OVERRIDE ...]
"""

import statistics
import subprocess
import sys
import time

DEFAULT = ["adapter=head_only,lora,vera,loretta_rep,lorta", "rank=4,8", "task=glue", "seed=0,1,2"]
REPEATS = 5
PLAN = """
import sys
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
plan = make_plan(sys.argv[1:], True, CONF)
assert not plan.problems, plan.problems
print(len(plan.specs) + plan.duplicates, len(plan.specs), "torch" in sys.modules)
"""


def main() -> None:
    """Plan in fresh processes and print cells, runs, and the median of whole-process seconds."""
    overrides = sys.argv[1:] or DEFAULT
    seconds: list[float] = []
    output = ""
    for _ in range(REPEATS):
        begun = time.perf_counter()
        command = [sys.executable, "-c", PLAN, *overrides]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seconds.append(time.perf_counter() - begun)
    cells, runs, torch_imported = output.split()
    print(f"{cells} cells, {runs} runs, torch imported: {torch_imported}")
    spread = f"from {min(seconds):.2f} to {max(seconds):.2f}"
    print(f"whole-process seconds, median of {REPEATS}: {statistics.median(seconds):.2f} ({spread})")


if __name__ == "__main__":
    main()
