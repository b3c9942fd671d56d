"""What a person sees while a sweep runs: a table of counts, runs at work and time left, or plain lines in a log.

Not rich.progress: it advances tasks of this process; these are counts by state, and runs of other processes on a store.
"""

import json
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from lorta.planning.spec import RunSpec
from lorta.planning.titles import titles
from lorta.records.record import RunRecord
from lorta.records.row_counts import lost_sentences
from lorta.records.store import PROGRESS_NAME

MOST_SHOWN = 16  # runs at work
BAR = 12  # characters: what stands beside it fits 80 columns


class AtWork(NamedTuple):
    """How far a run that trains now is, with the loss and the learning rate that it logged last."""

    step: int
    steps: int
    loss: float | None = None
    rate: float | None = None

    def __str__(self) -> str:
        """Return it in words."""
        loss = "" if self.loss is None else f", loss {self.loss:.3g}"
        rate = "" if self.rate is None else f", rate {self.rate:.3g}"
        return f"step {self.step} of {self.steps}{loss}{rate}"


def outcome(record: RunRecord) -> str:
    """Return one line about a finished run: its score and size, or why there is none."""
    if record.status != "success":
        because = record.reason or (f"{record.failure.kind}: {record.failure.message}" if record.failure else "")
        return f"{record.status} ({' '.join(because.split())})"
    score, task, params, time = record.primary_score, record.task, record.params, record.time
    assert score is not None and task is not None and params is not None and time is not None
    value = "undefined" if score.value is None else f"{score.value:.4f}"
    return (
        f"{task.metric_primary} {value} with {params.adapter:,} adapter and {params.head:,} head parameters, "
        f"{time.wall_s:.1f} s (record {record.run_id})"
    )


def follow(specs: Sequence[RunSpec], finished: Iterable[RunRecord | None], console: Console) -> list[RunRecord]:
    """Show the sweep while `finished` yields records (None: look again); return the records."""
    sweep, said = Sweep(specs), set[str]()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        for record in finished:
            if record is not None:
                sweep.add(record)
                line = f"[{len(sweep.records)}/{len(specs)}] {sweep.names[record.run_id]}: {outcome(record)}"
                console.print(line, markup=False)
                for sentence in _lost_rows(record):
                    if sentence not in said:
                        console.print(f"rows of {sentence}", markup=False)
                    said.add(sentence)
            elif console.is_terminal:
                live.update(sweep.table(), refresh=True)
    return sweep.records


def _lost_rows(record: RunRecord) -> list[str]:
    if record.task is None:
        return []
    counts = {use: split.count for use, split in record.task.splits.items()}
    return lost_sentences(record.task.name, {use: count for use, count in counts.items() if count is not None})


class Sweep:
    """How far a sweep is: what has ended, what is at work, and how long the rest will take at this pace."""

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        self.names = titles(specs)
        self.records: list[RunRecord] = []
        self._left = {spec.run_id: spec.folder / PROGRESS_NAME for spec in specs}
        self._begun = time.monotonic()

    def add(self, record: RunRecord) -> None:
        """Count a run that has ended."""
        self.records.append(record)
        self._left.pop(record.run_id, None)

    def at_work(self) -> dict[str, AtWork]:
        """Return signature -> how far it is, for the runs that train now."""
        running: dict[str, AtWork] = {}
        for signature, path in self._left.items():
            try:
                state = json.loads(path.read_text())
            except (OSError, ValueError):  # not started yet, just ended, or a damaged folder
                continue
            numbers = state["step"], state["max_steps"], state.get("loss"), state.get("learning_rate")
            running[signature] = AtWork(*numbers)
        return running

    def seconds_left(self, at_work: dict[str, AtWork]) -> float | None:
        """Return how long the rest takes if it goes on as until now; None before there is anything to go by."""
        done = len(self.records) + sum(run.step / max(run.steps, 1) for run in at_work.values())
        elapsed = time.monotonic() - self._begun
        return elapsed / done * (len(self.names) - done) if done >= 0.1 else None

    def table(self) -> Group:
        """Return what is shown: counts, a bar for the sweep, and one for each run at work."""
        at_work = self.at_work()
        failed = sum(record.status != "success" for record in self.records)
        left = self.seconds_left(at_work)
        counts = (
            f"{len(self.records) - failed} done, {len(at_work)} running, {failed} failed, "
            f"{len(self._left) - len(at_work)} to do; {clock(time.monotonic() - self._begun)} so far, "
            f"{'?' if left is None else clock(left)} to go"
        )
        grid = Table.grid(padding=(0, 1))
        grid.add_row("sweep", ProgressBar(len(self.names), len(self.records), width=BAR), counts)
        for signature, run in list(at_work.items())[:MOST_SHOWN]:
            grid.add_row(f"  {self.names[signature]}", ProgressBar(run.steps, run.step, width=BAR), str(run))
        if len(at_work) > MOST_SHOWN:
            grid.add_row("", "", f"and {len(at_work) - MOST_SHOWN} more")
        return Group(grid)


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
