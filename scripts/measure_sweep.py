"""Print what the harness costs and saves: seconds beside training and scoring, and the memory of several workers.

python scripts/measure_sweep.py [--workers 2] [--seeds 10] [--alone 6] [--memory]   (seeds: six runs each)
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lorta.harness.store import Store

RUN = Path(__file__).parents[1] / "run.py"
CELLS = ["adapter=head_only,lora,lorta", "task=glue/cola,glue/rte", "trainer=smoke"]  # six runs a seed
LARGE = ["adapter=lora", "model=minilm", "task=glue/sst2", "data.source=embedded", "trainer.max_steps=100000"]
SETTLED_S, SAMPLES = 45.0, 10  # until workers train, and how often their memory is read


def command(folder: str, *words: str) -> list[str]:
    """Return the command line of a sweep with places of its own."""
    places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
    return [sys.executable, str(RUN), *places, *words]


def seconds(words: list[str]) -> float:
    """Return the wall time of a command that must succeed."""
    begun = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - begun


def measure_time(workers: int, seeds: int, alone: int) -> None:
    """Compare a sweep with as many separate processes, of which `alone` are run and the rest worked out."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = command(folder, "-m", *CELLS, f"seed={','.join(map(str, range(seeds)))}", f"runtime.workers={workers}")
        wall = seconds(sweep)
        records = Store(f"{folder}/runs").records()
        work = sum((found.time.train_s or 0) + (found.time.eval_s or 0) for found in records if found.time)
        again = seconds(sweep)
    with tempfile.TemporaryDirectory() as folder:
        single = [seconds(command(folder, "adapter=lora", "task=glue/cola", "trainer=smoke", f"seed={seed}"))
                  for seed in range(alone)]  # fmt: skip
    average = sum(single) / alone
    beside = (wall * workers - work) / len(records)
    print(f"{len(records)} runs with {workers} workers: {wall:.1f} s, {wall / len(records):.2f} s a run")
    print(f"training and scoring {work:.1f} s; all else {beside:.2f} s of a worker a run")
    print(f"the same command again: {again:.2f} s")
    print(f"separate processes: {average:.1f} s each, mean of {alone}; {len(records)} would take {average * len(records):.0f} s"
          f", {average * len(records) / wall:.1f} times the sweep")  # fmt: skip


def memory_of(workers: int) -> float:
    """Return the MiB (proportional set size) of a sweep and its processes while so many workers train."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(workers)))
        sweep = subprocess.Popen(command(folder, "-m", *LARGE, f"seed={seeds}", f"runtime.workers={workers}"))
        try:
            time.sleep(SETTLED_S + 5 * workers)
            found = []
            for _ in range(SAMPLES):
                family = [psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children(recursive=True)]
                found.append(sum(process.memory_full_info().pss for process in family) / 2**20)
                time.sleep(1)
        finally:
            sweep.terminate()
            sweep.wait()
    return max(found)


def main() -> None:
    """Measure time, or memory with --memory."""
    parser = argparse.ArgumentParser()
    for name, default in (("workers", 2), ("seeds", 10), ("alone", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if not options.memory:
        measure_time(options.workers, options.seeds, options.alone)
        return
    one, four = memory_of(1), memory_of(4)
    print(f"memory with one worker {one:.0f} MiB, with four {four:.0f} MiB: {four / one:.2f} times")


if __name__ == "__main__":
    main()
