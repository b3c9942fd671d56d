"""Print what the harness costs and saves: seconds beside training and scoring, and against a process for each run.

python -m benchmarks.sweep [--workers 2] [--seeds 10] [--alone 6] [OVERRIDE ...]   (six runs a seed)

Without overrides runs train for some seconds; trainer=smoke: as short as they get; data.root=DATA: real MRPC and RTE.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorta.records.store import Store

RUN = Path(__file__).parents[1] / "run.py"
ADAPTERS, TASKS = ("head_only", "lora", "lorta"), ("glue/mrpc", "glue/rte")


def seconds(folder: str, *words: str) -> float:
    """Return the wall time of a command that must succeed, with places of its own."""
    places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(RUN), *places, *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def measure_sweep(workers: int, seeds: int, words: list[str]) -> tuple[int, float]:
    """Print what a sweep costs, and return the number of its runs and its wall time."""
    cells = (
        "-m",
        f"adapter={','.join(ADAPTERS)}",
        f"task={','.join(TASKS)}",
        f"seed={','.join(map(str, range(seeds)))}",
    )
    with tempfile.TemporaryDirectory() as folder:
        wall = seconds(folder, *cells, f"runtime.workers={workers}", *words)
        times = [record.time for record in Store(f"{folder}/runs").records() if record.time]
        again = seconds(folder, *cells, f"runtime.workers={workers}", *words)
    count, total = len(times), wall * workers
    work = sum((timing.train_s or 0) + (timing.eval_s or 0) for timing in times)
    inside = sum(timing.wall_s or 0 for timing in times)
    print(f"{count} runs with {workers} workers: {wall:.1f} s, {wall / count:.2f} s a run")
    print(f"worker seconds a run: training, scoring {work / count:.2f}, loading, saving {(inside - work) / count:.2f}")
    print(f"  and {(total - inside) / count:.2f} outside of runs, start and report included")
    print(f"all but training and scoring: {1 - work / total:.1%} of the sweep", end="; ")
    print(f"5 % where a run trains and scores for {19 * (total - work) / count:.1f} s")
    print(f"the same command again, nothing to do: {again:.2f} s")
    return count, wall


def main() -> None:
    """Compare a sweep with as many separate processes, of which only `alone` are run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("workers", 2), ("seeds", 10), ("alone", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("words", nargs="*", default=["trainer.num_train_epochs=20"], metavar="OVERRIDE")
    options = parser.parse_args()
    count, wall = measure_sweep(options.workers, options.seeds, options.words)
    cells = list(itertools.product(range(options.alone), ADAPTERS, TASKS))[: options.alone]
    with tempfile.TemporaryDirectory() as folder:
        alone = [
            seconds(folder, f"adapter={adapter}", f"task={task}", f"seed={seed}", *options.words)
            for seed, adapter, task in cells
        ]
    average = sum(alone) / len(alone)
    print(f"a process for each run: {average:.1f} s, mean of {len(alone)}; {average * count / wall:.1f} times as long")


if __name__ == "__main__":
    main()
