"""One Slurm job array for the runs of a sweep, and what each of its tasks does. Submitting imports no torch."""

import io
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from lorta.config.launcher import SlurmSettings
from lorta.config.places import CHECKOUT
from lorta.launch.local import run_all
from lorta.launch.progress import outcome
from lorta.planning.planner import Plan
from lorta.planning.spec import RunSpec
from lorta.planning.titles import title, titles
from lorta.records.record import RunRecord
from lorta.records.sections import Failure
from lorta.records.store import CHECKPOINT, StoreUnwritable, writing
from lorta.runner.attempt import ENDED, attempts_so_far, lost, skip
from lorta.runner.os_errors import try_writing
from lorta.runner.record_builder import now
from lorta.status.states import plan_states
from lorta.system.preemption import (
    EXIT_STATUS,
    SIGNALS,
    Preempted,
    defer_preemption,
    handle_preemption_signals,
    requested_by,
)
from lorta.system.slurm_jobs import JOB_NAME, Job, cancelled, read_job, requeued, this_job, write_job
from lorta.system.terminal import counted, print_anything
from lorta.training.recovery import newest_checkpoint

FOLDER = "slurm"  # in the store: scripts, settings and logs of all arrays
EARLY_S = 60.0  # sbatch(1): its signal may come so much earlier
# A signal that comes before a task listens would end it; blocked before Python starts anew, it waits until then
BLOCKED = """import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
os.execv(sys.argv[1], sys.argv[1:])"""


def submit_plan(plan: Plan, settings: SlurmSettings, console: Console) -> int | None:
    """Submit what is neither done, running nor in the queue as one array, and return the exit status at once.

    None when all is done and only a table is left to print.
    """
    states = {state.run_id: state.state for state in plan_states(plan, titles(plan.runs))}
    counts = Counter(states.values())
    left_alone = {"running", "pending", "unsupported", *(() if plan.specs[0].settings.runtime.force else ("done",))}
    todo = [spec for spec in plan.specs if states[spec.run_id] not in left_alone]
    if not todo and not counts["running"] + counts["pending"]:
        return None
    if problem := _unavailable():
        console.print(f"hydra/launcher=slurm: {problem}", markup=False)
        return 2
    console.print(
        f"{counted(len(plan.specs), 'run')}: {len(todo)} to submit, {counts['done']} done, "
        f"{counts['running']} running, {counts['pending']} in the queue already, {counts['unsupported']} not supported"
    )
    if not todo:
        return 0
    try:
        job = submit(todo, settings)
    except StoreUnwritable as error:
        console.print(f"nothing was submitted: {error.strerror}", markup=False)
        return 2
    except ValueError as error:
        console.print(f"nothing was submitted: {error}", markup=False)
        return 2
    for spec in plan.specs:
        if sentence := plan.unsupported.get(spec.run_id):
            skip(spec, sentence)
    console.print(
        f"submitted as Slurm job {job}; `lorta status` with the same overrides shows its progress", markup=False
    )
    return 0


def _unavailable() -> str | None:
    if find_spec("submitit") is None:
        return "submitit is not installed; pip install 'lorta[slurm]'"
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        return "there is no sbatch or no srun here; run it where jobs are submitted, or without hydra/launcher"
    return None


def submit(specs: Sequence[RunSpec], settings: SlurmSettings) -> str:
    """Submit an array with a task for every so many runs, note that in their folders, and return the job's id.

    Raises ValueError with sbatch's own words when it refuses, StoreUnwritable before anything is submitted.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    submitted_at, before = now(), attempts_so_far(specs)
    for spec in specs:  # a job whose run cannot be noted would be submitted again by the next command
        with writing(spec.folder):
            spec.folder.mkdir(parents=True, exist_ok=True)
            try_writing(spec.folder)
    folder = Path(specs[0].settings.runtime.runs) / FOLDER / f"{submitted_at.replace(':', '')}-{specs[0].run_id}"
    executor = SlurmExecutor(folder, python=shlex.join([sys.executable, "-IS", "-c", BLOCKED, sys.executable]))
    executor.update_parameters(**_parameters(specs, settings))
    tasks = [specs[first : first + settings.runs_per_task] for first in range(0, len(specs), settings.runs_per_task)]
    attempts = [[before[spec.run_id] for spec in task] for task in tasks]
    try:
        with redirect_stderr(io.StringIO()):  # where submitit repeats what it raises
            jobs = executor.map_array(run_task, tasks, attempts, [_warned_after(settings)] * len(tasks))
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(_with_remedy(" ".join(str(error).split()), len(tasks))) from error
    for task, job in zip(tasks, jobs, strict=True):
        for spec in task:
            write_job(spec.folder, Job(job.job_id, title(spec), submitted_at, str(job.paths.stdout)))
    return jobs[0].job_id.partition("_")[0]


def _with_remedy(refusal: str, tasks: int) -> str:
    if "Invalid job array specification" not in refusal:
        return refusal
    limit = f"an array of {tasks} is too large here (`scontrol show config`: MaxArraySize)"
    return f"{refusal}; {limit}, narrow the sweep or raise hydra.launcher.runs_per_task"


def _parameters(specs: Sequence[RunSpec], settings: SlurmSettings) -> dict[str, Any]:
    """Return submitit's names and values."""
    cpus = settings.cpus_per_task
    if cpus == "auto":
        cpus = max(spec.settings.trainer.cpu_threads for spec in specs)
    chosen = settings.model_dump(include={"partition", "account", "qos", "constraint", "gpus_per_node"})
    memory = {} if settings.mem_gb is None else {"mem": f"{round(settings.mem_gb * 1024)}MB"}
    own = {"signal": f"USR1@{settings.signal_delay_s}", "requeue": True}  # submitit's own signal is USR2
    return {
        **{key: value for key, value in chosen.items() if value is not None},
        **memory,
        "job_name": f"lorta-{specs[0].settings.runtime.name}",
        "time": settings.timeout_min,
        "cpus_per_task": cpus,
        "srun_args": [f"--cpus-per-task={cpus}"],  # since Slurm 22.05, srun does not take it over from sbatch
        "array_parallelism": settings.array_parallelism,
        "stderr_to_stdout": True,
        "setup": [*_path_of_checkout(), *settings.setup],
        "additional_parameters": own | settings.additional_parameters,
    }


def _path_of_checkout() -> list[str]:
    """Return the line that lets a job's script import `lorta` from a checkout; an installed one is there already."""
    return [f"export PYTHONPATH={shlex.quote(str(CHECKOUT))}${{PYTHONPATH:+:$PYTHONPATH}}"] if CHECKOUT else []


def _warned_after(settings: SlurmSettings) -> float:
    """Return the seconds after which SIGUSR1 may mean the end of the time, not another job's precedence."""
    return settings.timeout_min * 60 - settings.signal_delay_s - EARLY_S


def run_task(specs: Sequence[RunSpec], attempts_before: Sequence[int], warned_after_s: float) -> str:
    """Do runs one after another as a task of the array and return the last one's status, or that they are requeued.

    A run that ended in an earlier start of the task is not done again, so a requeued task goes on where it was. A run
    without a result stops no other, but on a GPU, whose state may be lost with it, the others wait for a fresh process.
    Raises SystemExit with status 1 when one of them has no result.
    """
    status, failed, unsound = "", False, False
    with handle_preemption_signals():  # between two runs, too
        for spec, before in zip(specs, attempts_before, strict=True):
            if unsound and requested_by() is None:
                return _requeue(spec, "in a new process, the run before it failed")
            begins = attempts_so_far([spec])[spec.run_id] <= before
            try:
                status = _run_or_leave(spec, before, warned_after_s)
            except SystemExit as left:
                if left.code == EXIT_STATUS:  # the cluster forbids to requeue
                    raise
                failed, unsound = True, begins and _cuda_started()
            if status == "requeued":
                return status
    if failed:
        raise SystemExit(1)
    return status


def _run_or_leave(spec: RunSpec, before: int, warned_after_s: float) -> str:
    try:
        return run_in_job(spec, before, warned_after_s)
    except Preempted:  # just before the run began, or behind it
        return run_in_job(spec, before, warned_after_s)


def _cuda_started() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def run_in_job(spec: RunSpec, attempts_before: int, warned_after_s: float) -> str:
    """Do one run as a task of the array and return its status; asked to leave but not cancelled, requeue it.

    Raises SystemExit with status 1 for a run without a result, so that Slurm calls the task failed.
    """
    begun = time.monotonic()
    print_anything()
    with handle_preemption_signals():
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            runs = run_all([spec], 0, {spec.run_id: attempts_before}, say=print)
            records = [record for record in runs if record is not None]
            record = records[0] if records else None
        except Preempted:
            record = None
        with defer_preemption():
            if record is None and requested_by() == signal.SIGTERM and cancelled(this_job() or ""):
                record = lost(spec, attempts_before, "cancelled", _cancelled())
            elif requested_by() is not None and (record is None or record.status == "preempted"):
                if time.monotonic() - begun < warned_after_s or _got_further(spec, record):
                    return _requeue(spec)
                record = lost(spec, attempts_before, "timeout", _too_short()) or record
            if record is not None and record.status in ENDED:
                (spec.folder / JOB_NAME).unlink(missing_ok=True)
    print(f"{title(spec)}: {outcome(record) if record else 'not begun'}")
    if record is None or record.status != "success":
        raise SystemExit(1)
    return record.status


def _got_further(spec: RunSpec, record: RunRecord | None) -> bool:
    checkpoint = newest_checkpoint(spec.folder / CHECKPOINT)
    return record is not None and checkpoint is not None and int(checkpoint.name) > (record.resumed_from_step or 0)


def _requeue(spec: RunSpec, why: str = "stopped by a signal") -> str:
    """Go back into the queue, into the same folder; raises SystemExit where the cluster forbids that."""
    name = this_job()
    assert name is not None, "a task of an array has a job id"
    before = read_job(spec.folder) or Job(name, title(spec), "", "")
    write_job(spec.folder, replace(before, submitted_at=now()))
    if requeued(name):  # somebody else did
        print(f"{title(spec)}: {why}, Slurm job {name} is in the queue again")
        return "requeued"
    done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
    if done.returncode != 0:  # it may be in the queue nevertheless, by Slurm's own doing: squeue tells
        write_job(spec.folder, before)
        print(f"{title(spec)}: {why}; {done.stderr}")
        raise SystemExit(EXIT_STATUS)
    print(f"{title(spec)}: {why}, requeued as Slurm job {name}")
    return "requeued"


def _too_short() -> Failure:
    message = f"the time of Slurm job {this_job()} ended before a further checkpoint: raise hydra.launcher.timeout_min"
    return Failure(kind="timeout", type="TimeoutError", message=message, phase="unknown")


def _cancelled() -> Failure:
    message = f"Slurm job {this_job()} was cancelled (scancel) before anything was done"
    return Failure(kind="preempted", type="Preempted", message=message, phase="setup")
