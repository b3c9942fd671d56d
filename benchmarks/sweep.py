"""Print what the harness costs and saves: seconds beside training and scoring, and against a process for each run.

python -m benchmarks.sweep [--workers 2] [--seeds 10] [--alone 6] [OVERRIDE ...]   (six runs a seed)
python -m benchmarks.sweep --beside CHECKOUT [--repeats 3] [--seeds 10] [OVERRIDE ...]   (two builds in turn)

Without overrides runs train for some seconds; trainer=smoke: as short as they get; data.root=DATA: real MRPC and RTE.
With another checkout, processor time of all processes is compared, which counts on a busy machine too; CHECKOUT/.venv/
bin/python is used where it is there.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processor_time import ROOT, cost, python_of
from lorta.records.store import Store

RUN = Path(__file__).parents[1] / "run.py"
ADAPTERS, TASKS = ("head_only", "lora", "lorta"), ("glue/mrpc", "glue/rte")


def seconds(folder: str, *words: str) -> float:
    """Return the wall time of a command that must succeed, with places of its own."""
    places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(RUN), *places, *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def cells_of(seeds: int) -> tuple[str, ...]:
    """Return the words of a sweep of six runs a seed."""
    lists = {"adapter": ADAPTERS, "task": TASKS, "seed": map(str, range(seeds))}
    return "-m", *(f"{key}={','.join(values)}" for key, values in lists.items())


def processor_time(checkout: Path, words: list[str]) -> tuple[float, float]:
    """Return the processor time of a build's sweep, and that within its runs, 0 where its records do not tell."""
    with tempfile.TemporaryDirectory() as folder:
        places = [f"runtime.{name}={folder}/{name}" for name in ("runs", "cache", "results")]
        used = cost([python_of(checkout), "run.py", *places, *words], checkout).seconds
        times = [json.loads(file.read_text())["time"] for file in Path(folder, "runs").glob("*/record.json")]
    return used, sum(time.get("cpu_s") or 0.0 for time in times)


def compare_builds(other: Path, repeats: int, words: list[str]) -> None:
    """Print what the same sweep costs with this build and with the other one, in turn, and the medians."""
    taken: dict[Path, list[tuple[float, float]]] = {ROOT: [], other: []}
    for _ in range(repeats):
        for checkout, times in taken.items():
            times.append(processor_time(checkout, words))
            print(f"{checkout.name}: {times[-1][0]:.1f} s, {times[-1][1]:.1f} of it in runs", flush=True)
    medians = [statistics.median(used for used, _ in times) for times in taken.values()]
    print(f"medians: {medians[0]:.1f} and {medians[1]:.1f} s, {medians[0] / medians[1]:.2f} of the other build's")


def measure_sweep(workers: int, seeds: int, words: list[str]) -> tuple[int, float]:
    """Print what a sweep costs, and return the number of its runs and its wall time."""
    cells = cells_of(seeds)
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
    """Compare a sweep with as many separate processes, of which only `alone` are run; or with another build's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("workers", 2), ("seeds", 10), ("alone", 6), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("words", nargs="*", default=["trainer.num_train_epochs=20"], metavar="OVERRIDE")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT")
    options = parser.parse_args()
    if options.beside:
        words = [*cells_of(options.seeds), f"runtime.workers={options.workers}", *options.words]
        compare_builds(options.beside, options.repeats, words)
        return
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
