"""Weights & Biases or Trackio as a mirror: written from the record and its history after the run.

So it can be rebuilt from them.
"""

import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from io import StringIO
from typing import Any

from lorta.config.settings import TrackingSettings
from lorta.records.record import RunRecord
from lorta.records.sections import Tracking
from lorta.records.store import Store
from lorta.system.optional_libraries import WANDB, require

TRACKIO = "trackio"
WANDB_MODES = ("offline", "online")


def mirrored(record: RunRecord, store: Store, tracking: TrackingSettings) -> RunRecord:
    """Send a run to the tracking service, if one is chosen, and return its record, which says where it is.

    A failure of the service costs a line of the record, never the run. A run that was asked to leave has no time for
    that; the attempt that ends it sends everything under the same id.
    """
    if tracking.mode == "none" or record.status in ("preempted", "cancelled"):
        return record
    try:
        send = _to_trackio_silently if tracking.mode == TRACKIO else mirror
        url = send(record, store, tracking.mode, tracking.project)
    except Exception as error:
        record = replace(record, reasons={**record.reasons, "tracking": f"{type(error).__name__}: {error}"})
    else:
        reasons = {name: why for name, why in record.reasons.items() if name != "tracking"}
        wandb_id = None if tracking.mode == TRACKIO else record.run_id
        sent = Tracking(mode=tracking.mode, wandb_id=wandb_id, wandb_url=url)
        record = replace(record, tracking=sent, reasons=reasons)
    store.write(record)
    return record


def mirror(record: RunRecord, store: Store, mode: str, project: str) -> str | None:
    """Write the run to wandb (`mode` is offline or online) under its signature; return its address, None offline.

    Sending the same record again adds to the same run. Raises what wandb raises.
    """
    require(WANDB, f"tracking.mode={mode}")
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    run = wandb.init(
        id=record.run_id,
        name=_name(record),
        group=record.cell_id,
        project=project,
        mode="offline" if mode == "offline" else "online",
        resume="allow",
        dir=str(store.folder(record.run_id)),
        config=record.config,
        settings=wandb.Settings(console="off", x_disable_stats=True),
    )
    try:
        for step, values in _history(record, store):
            run.log(values, step=step)
        run.summary.update(_summary(record))
    finally:
        run.finish(exit_code=0 if record.status == "success" else 1)
    return run.url


def _to_trackio_silently(record: RunRecord, store: Store, mode: str, project: str) -> None:
    """Write the run to Trackio without its lines of advice, of which a sweep would print as many as it has runs."""
    with redirect_stdout(StringIO()):
        _to_trackio(record, store, mode, project)


def _to_trackio(record: RunRecord, store: Store, mode: str, project: str) -> None:
    """Write the run to Trackio's files on this machine, under its name and signature. Raises what trackio raises.

    Sending the same record again adds to the same run.
    """
    try:
        trackio = import_module("trackio")
    except ImportError as error:
        raise ImportError(f"tracking={mode} needs the package trackio: pip install 'lorta[trackio]'") from error

    trackio.init(
        project=project,
        name=f"{_name(record)}-{record.run_id}",
        group=record.cell_id,
        config=record.config,
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        step = 0
        for step, values in _history(record, store):
            trackio.log(values, step=step)
        numbers = {name: value for name, value in _summary(record).items() if isinstance(value, int | float)}
        trackio.log(numbers, step=step)
    finally:
        trackio.finish()


def _history(record: RunRecord, store: Store) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each step with its values of the run's history, which may not be there."""
    rows = store.read_rows(record.run_id, record.history_file) if record.history_file else []
    for row in rows:
        yield int(row["step"]), {f"train/{key}": value for key, value in row.items() if key != "step"}


def _name(record: RunRecord) -> str:
    adapter = record.adapter.name if record.adapter else "unknown"
    rank = f"-r{record.adapter.rank}" if record.adapter and record.adapter.rank is not None else ""
    task = record.task.name.replace("/", "-") if record.task else "unknown"
    return f"{adapter}{rank}-{task}-seed{record.seed}"


def _summary(record: RunRecord) -> dict[str, Any]:
    scores = {
        f"{split}/{name}": score.value
        for split, metrics in (record.metrics or {}).items()
        for name, score in metrics.items()
    }
    counts = {f"params/{name}": value for name, value in vars(record.params).items()} if record.params else {}
    times = {f"time/{name}": value for name, value in vars(record.time).items()} if record.time else {}
    return {"status": record.status, **scores, **counts, **times}
