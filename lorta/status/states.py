"""How far a sweep is: the state of every planned run, read from its record without decoding all of it. No torch.

A record is read as plain JSON (pydantic's parser, half the time of the standard library's), 10,000 in about a second;
tables and exports read records through their types instead.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json

from lorta.config.identity import identity
from lorta.planning.planner import Plan
from lorta.planning.spec import RunSpec
from lorta.planning.titles import differing_values, typed_values
from lorta.records.canonical import sha256
from lorta.records.locks import holder
from lorta.records.record import LATER_SCHEMA, later_schema
from lorta.records.store import CHECKPOINT, PROGRESS_NAME, RECORD_NAME, Store
from lorta.status.shapes import STEERING_BYTES, printable, shaped
from lorta.system.slurm_jobs import Queue, read_job
from lorta.system.source_files import other_code, other_code_sentences
from lorta.training.recovery import newest_checkpoint

State = Literal["done", "running", "pending", "failed", "stale", "missing", "unsupported"]
NO_SETTING = ("runtime.", "tracking", "hydra")  # beginnings of words that are no part of what a run is
STATES: tuple[State, ...] = ("done", "running", "pending", "failed", "stale", "missing", "unsupported")


class RawRecord(NamedTuple):
    """A record as plain JSON, unchecked, and the folder it lies in."""

    folder: Path
    values: dict[str, Any]

    def get(self, *keys: str) -> Any:
        """Return a nested value, None where the record lacks it."""
        value: Any = self.values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def scored_split(self) -> dict[str, Any]:
        """What the record says of the split whose score tables show; nothing where it lacks it."""
        return self.get("task", "splits", str(self.get("task", "split_primary"))) or {}

    @property
    def is_trial(self) -> bool:
        """Whether the run was scored on held-out training rows, to choose a rate."""
        held_out, former = (self.get("config", "data", key) for key in ("holdout", "hold_out"))
        return isinstance(held_out, int) or former is not None

    @property
    def title(self) -> str:
        """The run's name for people: adapter, rank, task, seed."""
        rank = self.get("adapter", "rank")
        name = f"{self.get('adapter', 'name')}{'' if rank is None else f' r={rank}'}"
        rate = self.get("adapter", "learning_rate") or self.get("adapter", "head_learning_rate")
        trial = f" trial {rate:g}" if self.is_trial else ""
        source = self.get("imported", "format")
        imported = f", imported from {source}" if source else ""
        return f"{name} {self.get('task', 'name')}{trial} seed {self.get('seed')}{imported}"


@dataclass(frozen=True)
class RunState:
    """One run: its state, and why, where that is no matter of course."""

    run_id: str
    title: str
    state: State
    why: str = ""
    failure: str | None = None  # the class of a failed one


def glance(folder: Path) -> RawRecord | None:
    """Return the record in a run's folder; None where there is none or it is torn."""
    try:
        content = (folder / RECORD_NAME).read_bytes()
        values = from_json(content)
    except (OSError, ValueError, RecursionError):  # one damaged folder hides no other
        return None
    if not isinstance(values, dict):
        return None
    return RawRecord(folder, shaped(printable(values) if STEERING_BYTES.search(content) else values))


def glances(root: Path) -> Iterator[RawRecord]:
    """Yield all records of a store that can be read, ordered by signature."""
    return (record for folder in _folders(root) if (record := glance(folder)) is not None)


def _folders(root: Path) -> list[Path]:
    """Return what lies in a store, ordered by name."""
    return sorted(root.iterdir()) if root.is_dir() else []


def state_of(record: RawRecord) -> RunState:
    """Return the state that a record alone tells, and who works on the run."""
    run_id, status = str(record.get("run_id")), record.get("status")
    kind = record.get("failure", "kind")
    state: State = "stale"
    job = f" in Slurm job {record.get('slurm_job')}" if record.get("slurm_job") else ""
    why = f"{status}{job}; {_continuation(record.folder)}"
    if later_schema(record.values):
        state, why = "done" if status == "success" else "unsupported", LATER_SCHEMA
    elif status == "success":
        state, why = "done", other_code(record.get("code"), record.get("config") or {}) or ""
    elif status == "skipped":
        state, why = "unsupported", str(record.get("reason"))
    elif status in ("failed", "timeout"):
        message = str(record.get("failure", "message")).strip().split("\n")[0]
        state, why = "failed", f"{kind}: {message} (attempt {record.get('attempt')})"
    elif status == "running":
        process = holder(record.folder)
        if process is not None:
            state, why = "running", f"{_progress(record.folder)}process {process.pid} on {process.host}{job}"
        else:
            why = f"its process is gone; {_continuation(record.folder)}"
    return RunState(run_id, record.title, state, why, kind)


def other_code_lines(states: Iterable[RunState]) -> list[str]:
    """Return what is to be said of finished runs that other code has done, or a later version."""
    done = [state for state in states if state.state == "done"]
    later = sum(state.why == LATER_SCHEMA for state in done)
    lines = [f"{later} of {len(done)} done runs: {LATER_SCHEMA}"] if later else []
    return [*lines, *other_code_sentences([state.why if state.why != LATER_SCHEMA else None for state in done])]


def store_states(root: Path) -> list[RunState]:
    """Return the state of every run of a store that is begun or waits in a queue, ordered by signature.

    Imported records are no runs of this project and are left out.
    """
    queue, states = Queue(), list[RunState]()
    typed: dict[str, dict[str, dict[str, str]]] = {}  # title -> id -> what was typed
    for folder in _folders(root):
        record = glance(folder)
        if record is not None and record.get("imported"):
            continue
        if record is not None:
            settings = [word for word in record.get("overrides") or () if not word.startswith(NO_SETTING)]
            typed.setdefault(record.title, {})[str(record.get("run_id"))] = typed_values(settings)
            states.append(_or_pending(state_of(record), folder, record, queue))
        elif (process := holder(folder)) is not None:  # before its first record
            states.append(RunState(folder.name, "a run that has just begun", "running", str(process)))
        elif (job := read_job(folder)) is not None:
            states.append(_or_pending(RunState(folder.name, job.title, "missing"), folder, None, queue))
        elif (folder / RECORD_NAME).exists():
            why = f"{folder / RECORD_NAME} cannot be read: move the folder away, the sweep's command runs it again"
            states.append(RunState(folder.name, "a damaged run", "missing", why))
    return _told_apart(states, typed)


def _told_apart(states: Sequence[RunState], typed: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[RunState]:
    """Return the states; runs of one name that are not done are called by what was typed differently, too."""
    values: dict[str, str] = {}
    for title in {state.title for state in states if state.state != "done"}:
        values |= differing_values(typed.get(title, {}))
    return [
        replace(state, title=f"{state.title} {words}") if (words := values.get(state.run_id)) else state
        for state in states
    ]


def _or_pending(state: RunState, folder: Path, record: RawRecord | None, queue: Queue) -> RunState:
    """Return the state, or that the run waits in a queue for another attempt."""
    job = read_job(folder) if state.state in ("failed", "stale", "missing") else None
    if job is None:
        return state
    waits = queue.waiting(job, record.get("started_at") if record else None)
    if waits:
        return RunState(state.run_id, state.title, "pending", waits)
    gone = f"Slurm job {job.job_id} is gone and left no record; its log: {job.log}"
    return RunState(state.run_id, state.title, "missing", gone) if state.state == "missing" else state


def plan_states(plan: Plan, names: Mapping[str, str]) -> list[RunState]:
    """Return the state of every run of a plan, by whose `names` it is called.

    A record of other inputs or another protocol makes a run stale. One record at a time is in memory.
    """
    queue, runs = Queue(), plan.runs
    lookalikes: dict[str, Lookalike] | None = None
    states: list[RunState] = []
    for spec in runs:
        record = glance(spec.folder)
        if sentence := plan.unsupported.get(spec.run_id):
            states.append(RunState(spec.run_id, names[spec.run_id], "unsupported", sentence))
            continue
        if record is not None and record.get("status") != "skipped":
            state = replace(state_of(record), title=names[spec.run_id])
        elif (process := holder(spec.folder)) is not None:  # before its first record
            state = RunState(spec.run_id, names[spec.run_id], "running", str(process))
        else:
            lookalikes = _lookalikes(runs) if lookalikes is None else lookalikes
            state = _without_record(spec, names[spec.run_id], lookalikes)
        states.append(_or_pending(state, spec.folder, record, queue))
    return states


class Lookalike(NamedTuple):
    """What a finished record of other inputs or another protocol says of them."""

    run_id: str
    protocol: Any
    fingerprints: Mapping[str, str]


def _without_record(spec: RunSpec, title: str, lookalikes: Mapping[str, Lookalike]) -> RunState:
    earlier = lookalikes.get(_but_for_inputs(spec.config)) if lookalikes else None
    if earlier is None:
        return RunState(spec.run_id, title, "missing")
    new = spec.settings.task.get("protocol")
    if earlier.protocol != new:
        why = f"run {earlier.run_id} has protocol {earlier.protocol}, the task is at {new}"
        return RunState(spec.run_id, title, "stale", why)
    changed = sorted(key for key, value in spec.fingerprints.items() if earlier.fingerprints.get(key) != value)
    return RunState(spec.run_id, title, "stale", f"inputs changed since run {earlier.run_id}: {', '.join(changed)}")


def _lookalikes(runs: Sequence[RunSpec]) -> dict[str, Lookalike]:
    """Return the finished records of other inputs or protocols in the store, by what they share with a planned run."""
    own = {spec.run_id for spec in runs}
    by_rest: dict[str, Lookalike] = {}
    for folder in _folders(Store(runs[0].settings.runtime.runs).root):
        record = glance(folder) if folder.name not in own else None
        if record is None or record.get("status") != "success" or record.get("imported"):
            continue
        if config := record.get("config"):
            protocol, prints = record.get("config", "task", "protocol"), record.get("config", "fingerprints") or {}
            by_rest[_but_for_inputs(config)] = Lookalike(str(record.get("run_id")), protocol, prints)
    return by_rest


def _but_for_inputs(config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration's identity without what is read and by which protocol."""
    parts = identity(config)
    task = {key: value for key, value in parts["task"].items() if key != "protocol"}
    return sha256({**parts, "task": task, "fingerprints": None})


def _continuation(folder: Path) -> str:
    checkpoint = newest_checkpoint(folder / CHECKPOINT)
    return f"the same command goes on from step {checkpoint.name}" if checkpoint else "the same command starts it again"


def _progress(folder: Path) -> str:
    try:
        state = json.loads((folder / PROGRESS_NAME).read_text())
    except (OSError, ValueError, RecursionError):
        return ""
    loss = f"loss {state['loss']:.4g}, " if "loss" in state else ""
    return f"step {state['step']} of {state['max_steps']}, {loss}"
