"""Print the memory (proportional set size) of a sweep's processes with one worker and with several.

python -m benchmarks.workers [--workers 4] [OVERRIDE ...]   (runtime.allocator=system: without jemalloc)

The cell is LoRA on MiniLM; an override such as model=smollm2_135m task=instruct takes the place of a part of it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lorta.records.store import PROGRESS_NAME

RUN = Path(__file__).parents[1] / "run.py"
CELL = ("adapter=lora", "model=minilm", "task=glue/sst2", "data.source=embedded", "trainer.max_steps=100000")
SAMPLES = 10  # how often memory is read, once a second


def cell(overrides: list[str]) -> list[str]:
    """Return the words of CELL whose keys are not given, and those that are."""
    given = {word.partition("=")[0] for word in overrides}
    return [*(word for word in CELL if word.partition("=")[0] not in given), *overrides]


def mebibytes(family: list[psutil.Process]) -> float:
    """Return what processes have in memory, a page of several of them once; weights once, whoever else reads them."""
    total, weights = 0, dict[str, int]()
    for process in family:
        total += process.memory_full_info().pss
        for pages in process.memory_maps():
            if pages.path.endswith(".safetensors"):
                total -= pages.pss
                weights[pages.path] = max(pages.rss, weights.get(pages.path, 0))
    return (total + sum(weights.values())) / 2**20


def memory_of(workers: int, overrides: list[str]) -> float:
    """Return the largest MiB of a sweep and its processes while so many workers train."""
    with tempfile.TemporaryDirectory() as folder:
        places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
        seeds = ",".join(map(str, range(workers)))
        words = [*places, "-m", *cell(overrides), f"seed={seeds}", f"runtime.workers={workers}"]
        sweep, peak = subprocess.Popen([sys.executable, str(RUN), *words], stdout=subprocess.DEVNULL), [0.0]
        try:
            while sweep.poll() is None and len(list(Path(folder).glob(f"runs/*/{PROGRESS_NAME}"))) < workers:
                time.sleep(1)
            for _ in range(SAMPLES):
                peak.append(mebibytes([psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children(recursive=True)]))
                time.sleep(1)
        finally:
            sweep.terminate()
            sweep.wait()
    return max(peak)


def main() -> None:
    """Measure one worker and several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    options = parser.parse_args()
    workers = options.workers
    one, several = memory_of(1, options.overrides), memory_of(workers, options.overrides)
    print(f"one worker {one:.0f} MiB, {workers} workers {several:.0f} MiB: {several / one:.2f} times")


if __name__ == "__main__":
    main()
