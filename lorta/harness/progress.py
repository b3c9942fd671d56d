"""What a person sees while a sweep runs: one bar for the sweep, one for each run, or plain lines in a log."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lorta.harness.record import RunRecord
from lorta.harness.spec import RunSpec
from lorta.harness.store import PROGRESS_NAME


def title(spec: RunSpec) -> str:
    """Return a run's name for people: adapter, rank, task, seed."""
    adapter = spec.settings.adapter
    rank = f" r={adapter['rank']}" if adapter.get("rank") is not None else ""
    return f"{adapter['name']}{rank} {spec.settings.task['name']} seed {spec.settings.seed}"


def outcome(record: RunRecord) -> str:
    """Return one line about a finished run: its score and size, or why there is none."""
    if record.status != "success":
        because = record.reason or (f"{record.failure.kind}: {record.failure.message}" if record.failure else "")
        return f"{record.status} ({because})"
    score, task, params, time = record.primary_score, record.task, record.params, record.time
    assert score is not None and task is not None and params is not None and time is not None
    value = "undefined" if score.value is None else f"{score.value:.4f}"
    return (
        f"{task.metric_primary} {value} with {params.adapter:,} adapter and {params.head:,} head parameters, "
        f"{time.wall_s:.1f} s (record {record.run_id})"
    )


def follow(specs: Sequence[RunSpec], finished: Iterable[RunRecord | None], console: Console) -> list[RunRecord]:
    """Show the sweep while `finished` yields records (None: look again); return the records."""
    names = {spec.signature: title(spec) for spec in specs}
    records: list[RunRecord] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        sweep = progress.add_task("sweep", total=len(specs))
        bars: dict[str, Any] = {}
        for record in finished:
            if record is None:
                _update_bars(progress, bars, specs, names)
                continue
            records.append(record)
            progress.advance(sweep)
            if record.run_id in bars:
                progress.remove_task(bars.pop(record.run_id))
            console.print(f"[{len(records)}/{len(specs)}] {names[record.run_id]}: {outcome(record)}", markup=False)
    return records


def _update_bars(progress: Progress, bars: dict[str, Any], specs: Sequence[RunSpec], names: dict[str, str]) -> None:
    if progress.disable:
        return
    for spec in specs:
        try:
            state = json.loads((spec.folder / PROGRESS_NAME).read_text())
        except FileNotFoundError:  # not started yet, or just ended
            continue
        if spec.signature not in bars:
            bars[spec.signature] = progress.add_task(f"  {names[spec.signature]}", total=state["max_steps"])
        progress.update(bars[spec.signature], completed=state["step"], total=state["max_steps"])
