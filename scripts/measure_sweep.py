"""Print what the harness costs and saves: seconds beside training and scoring, and against a process for each run.

python scripts/measure_sweep.py [--workers 2] [--seeds 10] [--alone 6]   (six runs a seed)
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorta.harness.store import Store

RUN = Path(__file__).parents[1] / "run.py"
CELLS = ("adapter=head_only,lora,lorta", "task=glue/cola,glue/rte", "trainer=smoke")
ONE = ("adapter=lora", "task=glue/cola", "trainer=smoke")


def seconds(folder: str, *words: str) -> float:
    """Return the wall time of a command that must succeed, with places of its own."""
    places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(RUN), *places, *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    """Compare a sweep with as many separate processes, of which only `alone` are run."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("workers", 2), ("seeds", 10), ("alone", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweep = ("-m", *CELLS, f"seed={','.join(map(str, range(options.seeds)))}", f"runtime.workers={options.workers}")
        wall = seconds(folder, *sweep)
        records = Store(f"{folder}/runs").records()
        work = sum((found.time.train_s or 0) + (found.time.eval_s or 0) for found in records if found.time)
        inside = sum(found.time.wall_s or 0 for found in records if found.time)
        again = seconds(folder, *sweep)
    with tempfile.TemporaryDirectory() as folder:
        average = sum(seconds(folder, *ONE, f"seed={seed}") for seed in range(options.alone)) / options.alone
    count, total = len(records), wall * options.workers
    print(f"{count} runs with {options.workers} workers: {wall:.1f} s, {wall / count:.2f} s a run")
    print(f"worker seconds a run: training, scoring {work / count:.2f}, loading, saving {(inside - work) / count:.2f}")
    print(f"  and {(total - inside) / count:.2f} outside of runs, start and report included")
    print(f"the same command again, nothing to do: {again:.2f} s")
    print(
        f"a process for each run: {average:.1f} s, mean of {options.alone}; {average * count / wall:.1f} times as long"
    )


if __name__ == "__main__":
    main()
