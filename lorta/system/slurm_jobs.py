"""Which runs wait in a cluster's queue: a small file in a run's folder, and what squeue says of its job. No torch."""

import getpass
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from lorta.records.store import write_atomically

JOB_NAME = "job.json"  # of a run in a queue; gone when it has ended
ANSWER_S = 10.0  # that squeue may take


@dataclass(frozen=True)
class Job:
    """A run's place in the queue."""

    job_id: str  # as squeue prints it: 12_3 is task 3 of array 12
    title: str  # the run's, for people
    submitted_at: str  # or requeued; ISO-8601, UTC
    log: str  # file of what the job prints


def this_job() -> str | None:
    """Return the id of the Slurm job that this process is part of, None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def cancelled(job_id: str) -> bool:
    """Return whether a job is being ended, which SIGTERM alone does not say: some clusters preempt with it.

    A job that is preempted goes on running for its GraceTime; one that was cancelled, or is out of time, completes, and
    so does one that somebody requeued, whose count of restarts has gone up.
    """
    said = _said_of(job_id)
    return "JobState=RUNNING" not in said and "JobState=SIGNALING" not in said and not _restarts(said)


def requeued(job_id: str) -> bool:
    """Return whether a job is back in the queue already, as after `scontrol requeue`."""
    return _restarts(_said_of(job_id))


def _said_of(job_id: str) -> str:
    try:
        command = ["scontrol", "show", "job", job_id]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _restarts(said: str) -> bool:
    count = re.search(r"\bRestarts=(\d+)", said)
    return count is not None and int(count[1]) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def write_job(folder: Path, job: Job) -> None:
    """Note that the run of a folder is in the queue. Raises StoreUnwritable."""
    write_atomically(folder / JOB_NAME, json.dumps(asdict(job)) + "\n")


def read_job(folder: Path) -> Job | None:
    """Return the run's place in the queue, None where none was noted."""
    try:
        return Job(**json.loads((folder / JOB_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


class Queue:
    """The queue of this user, asked once, when it is needed first."""

    @cached_property
    def states(self) -> Mapping[str, str] | None:
        """Job id -> "PENDING (Priority)" and the like; None where there is no squeue, or no answer."""
        if shutil.which("squeue") is None:
            return None
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
        except (OSError, subprocess.SubprocessError):
            return None
        rows = (line.strip().split("|", 2) for line in done.stdout.splitlines())
        return {job: state if reason == "None" else f"{state} ({reason})" for job, state, reason in rows}

    def waiting(self, job: Job, started_at: str | None) -> str | None:
        """Return a sentence when a run waits in the queue, None when its job is gone or it has begun.

        `started_at` is when the last attempt at the run began. Without squeue the two times alone tell.
        """
        begun = started_at is not None and started_at >= job.submitted_at
        if self.states is None:
            return None if begun else f"Slurm job {job.job_id}, submitted at {job.submitted_at}; no squeue answers here"
        state = self.states.get(job.job_id, "COMPLETING")
        if state.startswith("COMPLETING") or (begun and not state.startswith("PENDING")):
            return None
        return f"Slurm job {job.job_id}: {state}"
