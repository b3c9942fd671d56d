"""Sweeps in processes that can be killed, forked from the server that workers come from: nothing is imported again."""

import multiprocessing
import os
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.launch.local import run_all
from lorta.launch.preload import OF_ALL
from lorta.planning.planner import make_plan
from lorta.planning.spec import RunSpec
from lorta.records.record import RunRecord
from lorta.records.store import Store

LENGTH = ["trainer.max_steps=12", "trainer.per_device_train_batch_size=8", "data.max_train_samples=64"]
SETTINGS = ["task=glue/cola", "trainer=smoke", "data.max_eval_samples=32", "runtime.checkpoint_steps=2", *LENGTH]
COMPLETED = "completed"  # one line for every record of a success, written behind it


def plan(folder: Path, *overrides: str) -> tuple[RunSpec, ...]:
    """The runs of a small sweep; its store is in `folder`, its rows are tokenised once for all sweeps of a test."""
    places = {"runs": folder / "runs", "cache": folder.parent / "cache", "results": folder / "results"}
    words = [f"runtime.{name}={place}" for name, place in places.items()]
    own = {word.partition("=")[0] for word in overrides}
    found = make_plan(
        [*(word for word in words if word.partition("=")[0] not in own), *SETTINGS, *overrides], True, CONF
    )
    assert not found.problems, found.problems
    return found.specs


def sweep(specs: tuple[RunSpec, ...], workers: int) -> None:
    """Run what is not done, and note every success behind its record."""
    write = Store.write

    def noted(store: Store, record: RunRecord) -> Path:
        path = write(store, record)
        if record.status == "success":
            with (store.root / COMPLETED).open("a") as file:
                file.write(f"{record.run_id}\n")
        return path

    Store.write = noted
    try:
        todo = [spec for spec in specs if not Store(spec.settings.runtime.runs).finished(spec.signature)]
        for _ in run_all(todo, workers):
            pass
    finally:
        Store.write = write


def start(specs: tuple[RunSpec, ...]) -> BaseProcess:
    """A sweep in a process of its own, which does the runs itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorta.system.quiet", *OF_ALL])
    process = context.Process(target=sweep, args=(specs, 0), daemon=True)
    process.start()
    return process


def outcome(specs: tuple[RunSpec, ...]) -> dict[str, Any]:
    """What a table is made from, by run: scores, predictions, history and the adapter's bytes."""
    found: dict[str, Any] = {}
    for spec in specs:
        record = Store(spec.settings.runtime.runs).read(spec.signature)
        assert record is not None
        assert record.status == "success", record.failure
        assert record.predictions_file is not None
        assert record.history_file is not None
        files = {file.name: file.read_bytes() for file in sorted((spec.folder / "adapter").iterdir())}
        side = (record.predictions_file.sha256, record.history_file.sha256)
        found[spec.signature] = (record.metrics, record.params, record.train_loss_final, side, files)
    return found


def completed(specs: tuple[RunSpec, ...]) -> list[str]:
    """The signatures of all runs done to completion, as often as they were."""
    return (Path(specs[0].settings.runtime.runs) / COMPLETED).read_text().split()


def leftovers(specs: tuple[RunSpec, ...]) -> list[str]:
    """Claims, checkpoints and unfinished files that a finished sweep has no use for."""
    names = [name for spec in specs for name in os.listdir(spec.folder)]
    return [name for name in names if name.startswith((".", "claim", "checkpoint", "progress"))]


def with_fault(spec: RunSpec, fault: str) -> RunSpec:
    """The run with one of the adapters that go wrong, which has a name, and so an identity, of its own."""
    node = {**spec.settings.adapter, "_target_": f"tests.faults.adapters.{fault}", "name": fault}
    settings = spec.settings.model_copy(update={"adapter": node})
    return replace(spec, settings=settings, adapter=build(node))
