"""A run that trains nothing: it notes what its process was given, and leaves the process in disorder behind it."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lorta.system.gpus import VARIABLE

AT_IMPORT = os.environ.get(VARIABLE)  # what a library that starts CUDA when it is imported would see
NOTES = "notes.jsonl"  # beside the store
LEFT = "LORTA_TEST_LEFT_BY"
KILLED = "killed"  # a file in a run's folder: its process ends as by the system
FAILS = "fails"  # likewise: the run fails


def attempt(spec, attempts_before: int, shares_gpu: bool = False) -> SimpleNamespace:
    """Note what this process sees; then set what a run must not leave to the next."""
    begun = time.monotonic()
    given = {"seed": spec.settings.seed, "gpu": os.environ.get(VARIABLE), "at_import": AT_IMPORT, "shares": shares_gpu}
    left = {"left": os.environ.get(LEFT)}
    os.environ[VARIABLE], os.environ[LEFT] = "7", str(spec.settings.seed)
    time.sleep(0.05)
    note = given | left | {"begun": begun, "ended": time.monotonic(), "process": os.getpid()}
    with (spec.folder.parent.parent / NOTES).open("a") as file:
        file.write(json.dumps(note) + "\n")
    if (spec.folder / KILLED).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    status = "failed" if (spec.folder / FAILS).exists() else "success"
    return SimpleNamespace(run_id=spec.run_id, status=status, attempt=attempts_before + 1, failure=None)


def light(folder: Path, seed: int, runs_per_process: int | str = "auto", own_process: bool = False) -> SimpleNamespace:
    """What `run_all` needs of a run, without the parts that take seconds to import in each process."""
    runtime = {"workers": "auto", "runs_per_gpu": "auto", "runs_per_process": runs_per_process}
    runtime |= {"timeout_s": None, "memory_limit_mib": None}
    settings = SimpleNamespace(seed=seed, runtime=SimpleNamespace(**runtime))
    adapter = SimpleNamespace(own_process=own_process)
    parts = {"settings": settings, "adapter": adapter, "config": {}}
    return SimpleNamespace(run_id=str(seed), folder=folder / "runs" / str(seed), **parts)


def lost(spec, attempts_before: int, status: str, failure: Any) -> SimpleNamespace:
    """The record of a run whose process is gone."""
    return SimpleNamespace(run_id=spec.run_id, status=status, attempt=attempts_before + 1, failure=failure)


def notes(folder: Path) -> list[dict]:
    """What all runs noted, in their order."""
    return [json.loads(line) for line in (folder / NOTES).read_text().splitlines()]
