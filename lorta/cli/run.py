"""The command line: plan, run what is missing, print the table. Bad input costs two seconds and one message."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorta.cli.own_folders import take_own_folders
from lorta.config.places import CONF, own_folders
from lorta.planning.lr_search import has_ended_for_search
from lorta.planning.planner import Plan, make_plan
from lorta.planning.requests import budget_sentences, waiting_sentences, with_requests
from lorta.planning.seeds import adds_to
from lorta.planning.spec import RunSpec
from lorta.records.store import CHECKPOINT, UNREADABLE, Store, StoreUnwritable, remove
from lorta.runner.attempt import skip
from lorta.status.rows import other_rows_sentences
from lorta.status.states import glances
from lorta.system.collection import end_without_collection, rare_collections
from lorta.system.preemption import EXIT_STATUS, Preempted, handle_preemption_signals, preemption_requested
from lorta.system.provenance import uncommitted_sentence
from lorta.system.source_files import other_code, other_code_sentences
from lorta.system.terminal import counted, print_anything

if TYPE_CHECKING:
    from rich.console import Console

HYDRA_FLAGS = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--shell-completion",
    "-sc",
    "--package",
    "-p",
    "--resolve",
)
HELP = """usage: {command} [-m] [GROUP=CHOICE ...] [KEY=VALUE ...]

  {command}                                                one run of the embedded default, offline
  {command} -m adapter=lorta rank=4,8,16 task=glue         a sweep: every combination is a run of its own
  {command} -m adapter=lora,vera,lorta budget=10k tune=lr  equal sizes and equal learning-rate searches
  {command} -m adapter=lora,lorta model=minilm task=glue/rte data.root=FOLDER seed=0,1,2

groups  adapter, model, task, trainer, tune, seeds, tracking, experiment: the files of conf/; glob(*) is all of them
        hydra/launcher=slurm submits a sweep as one job array, hydra.launcher.KEY=VALUE says how
        --conf FOLDER searches FOLDER/adapter/NAME.yaml, FOLDER/task/NAME.yaml ... as well
keys    conf/config.yaml and the group files; --cfg job prints the composed configuration
The same command again runs only what is missing, from checkpoints where there are any. Exit status: 0, 1 when a run
failed, 2 for a wrong command line, 75 when stopped by SIGTERM or SIGUSR1 before all was done.
`lorta plan|status|retry|collect` take the same overrides."""


def main(arguments: Sequence[str] | None = None, command: str = "python run.py") -> int:
    """Run the command line and return the exit status; `command` is what it was called as, for --help."""
    print_anything()
    end_without_collection()
    try:
        words = take_own_folders(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    if any(word.split("=")[0] in HYDRA_FLAGS for word in words):
        return _hydra(words)
    if {"-h", "--help"} & set(words):
        print(HELP.format(command=command))
        return 0
    multirun = bool({"-m", "--multirun"} & set(words))
    overrides = [word for word in words if word not in ("-m", "--multirun")]
    plan = plan_or_explain(overrides, multirun)
    from rich.console import Console

    console = Console(soft_wrap=True)
    if plan is not None and plan.runs:
        from lorta.status.committed import committed_sentence

        if sentence := committed_sentence(plan):
            console.print(sentence, markup=False)
    if plan is not None and (plan.trials or adds_to(plan.specs)):
        return run_rounds(plan, lambda: plan_or_explain(overrides, multirun), console, parallel=multirun)
    return 2 if plan is None else run_plan(plan, console, parallel=multirun)


def plan_or_explain(overrides: Sequence[str], multirun: bool) -> Plan | None:
    """Return the plan of a command line, or print everything that is wrong with it and return None."""
    flags = [word for word in overrides if word.startswith("-")]
    with rare_collections():
        plan = make_plan([word for word in overrides if word not in flags], multirun, CONF)
    problems = [f"{flag}: no such flag; see --help" for flag in flags] + list(plan.problems)
    if problems:
        print(
            f"{counted(len(problems), 'problem')}, nothing was run:",
            *(f"  {problem}" for problem in problems),
            sep="\n",
            file=sys.stderr,
        )
        return None
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    if not adds_to(plan.specs):
        return plan
    from lorta.status.seeds import with_seeds_needed

    try:
        return with_seeds_needed(plan)
    except ValueError as error:
        print(f"seeds=auto: {error}", file=sys.stderr)
        return None


def _hydra(words: list[str]) -> int:
    """Leave Hydra's own flags to Hydra."""
    import hydra

    from lorta.config.overrides import first_values

    words = first_values([word for word in words if word not in ("-m", "--multirun")])
    own = ",".join(f"file://{folder}" for folder in own_folders())
    sys.argv[1:] = [*words, *([f"hydra.searchpath=[{own}]"] if own else [])]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()
    return 0


def run_rounds(plan: Plan, again: Callable[[], Plan | None], console: "Console", parallel: bool) -> int:
    """Run trials of rates, and seeds of open questions, round by round until no plan has another; then report.

    What failed is not tried twice.
    """
    tried: set[str] = set()
    while batch := _round(plan, tried, console):
        if plan.launcher is not None:
            console.print("the same command goes on with what these runs decide when all of them have ended")
            return run_plan(replace(plan, specs=tuple(batch), trials=(), waiting=()), console, parallel)
        if status := _explained(partial(_run, batch, parallel, console), console):
            return status
        tried |= {spec.run_id for spec in batch}
        planned = again()
        if planned is None:
            return 2
        plan = planned
    if not plan.waiting:
        for trial in plan.trials:  # nobody goes on from them
            remove(trial.folder / CHECKPOINT)
    status = run_plan(plan, console, parallel, tried) if plan.specs else 1
    for sentence in waiting_sentences(plan):
        console.print(sentence, markup=False)
    return status or int(bool(plan.waiting))


def _round(plan: Plan, tried: Collection[str], console: "Console") -> list[RunSpec]:
    """Return what a plan has to run before it can be planned again, empty where that is nothing."""
    runtime = plan.runs[0].settings.runtime
    store = Store(runtime.runs)
    trials = [spec for spec in plan.trials if spec.run_id not in tried and not store.later(spec.run_id)]
    todo = [spec for spec in trials if runtime.force or not has_ended_for_search(store.last(spec.run_id))]
    if todo or (plan.trials and not tried):
        count = len(plan.trials)
        console.print(
            f"{counted(count, 'trial')} of learning rates so far: {len(todo)} to do, {count - len(todo)} done"
        )
    if todo:
        return todo
    if not adds_to(plan.specs):
        return []
    left = [spec for spec in plan.specs if spec.run_id not in tried and spec.run_id not in plan.unsupported]
    todo = [spec for spec in left if runtime.force or not store.finished(spec.run_id)]
    todo = [spec for spec in todo if not store.later(spec.run_id)]
    if todo:
        console.print(f"seeds until decided: {counted(len(plan.specs), 'run')} so far, {len(todo)} to do")
    return todo


def run_plan(plan: Plan, console: "Console", parallel: bool, tried: Collection[str] = ()) -> int:
    """Run what is not done yet, print table or result, and return the exit status; or submit it, if so chosen.

    Runs of a command line without -m (a suite such as task=glue) are done one after another. `tried` are runs that are
    not started (again).
    """
    _mirror_finished(plan, console)
    if plan.launcher is not None:
        from lorta.launch.slurm import submit_plan

        status = submit_plan(plan, plan.launcher, console)
        if status is not None:
            return status
    runtime = plan.specs[0].settings.runtime
    store = Store(runtime.runs)
    kept = [spec for spec in plan.specs if not runtime.force or spec.run_id in tried]
    done = {spec.run_id for spec in kept if store.finished(spec.run_id)}
    later = {spec.run_id: why for spec in plan.specs if spec.run_id not in done and (why := store.later(spec.run_id))}
    ended = {*done, *tried, *later, *plan.unsupported}
    todo = [spec for spec in plan.specs if spec.run_id not in ended]
    skipped = [spec for spec in plan.specs if spec.run_id in plan.unsupported and spec.run_id not in later]
    console.print(
        f"{counted(len(plan.specs), 'run')}: {len(todo):,} to do, {len(done):,} done, {len(skipped):,} not supported"
        f"{plan.duplicates}"
    )
    sizes = [f"budget: {sentence}" for sentence in budget_sentences(plan, only_off=True)]
    other_rows = other_rows_sentences(plan, glances(store.root)) if todo else []
    for sentence in [*_about_code(bool(todo), done, store), *other_rows, *sizes, *later.values()]:
        console.print(sentence, markup=False)

    def finish() -> int:
        for spec in skipped:
            skip(spec, plan.unsupported[spec.run_id])
            console.print(f"skipped: {plan.unsupported[spec.run_id]}", markup=False)
        status = _run(todo, parallel, console) if todo else 0
        status = status or _report(plan, store, console, bool(todo))
        if parallel and len(plan.specs) == 1 and not status:
            console.print(f"a table of all runs: lorta table --runs {store.root}", markup=False)
        return status

    return _explained(finish, console)


def _about_code(starts: bool, done: Collection[str], store: Store) -> list[str]:
    """Return what follows from code that is not committed or is other code than before: for new runs, and done ones."""
    now = uncommitted_sentence() if starts else None
    records = [record for run_id in sorted(done) if (record := store.last(run_id)) is not None]
    before = sum(bool(record.code and record.code.git_dirty) for record in records)
    phrases = [other_code(record.code and asdict(record.code), record.config) for record in records]
    again = (
        f"{before} of {len(done)} done runs had uncommitted changes, and committed suites refuse them: "
        "runtime.force=true runs them again"
    )
    return [*([now] if now else []), *([again] if before else []), *other_code_sentences(phrases)]


def _mirror_finished(plan: Plan, console: "Console") -> None:
    """Send finished runs to the tracking service that this command chooses, those that were not sent there before."""
    settings = plan.specs[0].settings
    if settings.tracking.mode == "none" or settings.runtime.force:
        return
    from lorta.runner.tracking import TRACKIO, mirrored

    store, mode = Store(settings.runtime.runs), settings.tracking.mode
    records = [record for spec in plan.specs if (record := store.last(spec.run_id)) and record.status == "success"]
    unsent = [record for record in records if record.tracking is None or record.tracking.mode != mode]
    sent = [mirrored(record, store, settings.tracking) for record in unsent]
    failed = [record for record in sent if record.tracking is None or record.tracking.mode != mode]
    if unsent:
        service = mode if mode == TRACKIO else f"wandb ({mode})"
        console.print(f"{service}: {len(sent) - len(failed)} of {len(unsent)} finished runs sent", markup=False)
    for record in failed:
        console.print(f"not sent: {record.run_id}: {record.reasons.get('tracking')}", markup=False)


def _explained(work: Callable[[], int], console: "Console") -> int:
    """Return the work's exit status, or say why it stopped and return the status of an interruption or of a failure."""
    from lorta.launch.local import WorkersUnavailable

    try:
        return work()
    except KeyboardInterrupt:
        console.print("interrupted; the same command continues with what is not finished")
        return 130
    except (StoreUnwritable, WorkersUnavailable) as error:
        console.print(f"stopped: {error.strerror}", markup=False)
        return 1


def _run(todo: Sequence[RunSpec], parallel: bool, console: "Console") -> int:
    """Run and return 0, or EXIT_STATUS when the process was asked to leave before all was done."""
    from lorta.launch.local import run_all, worker_count
    from lorta.launch.progress import follow

    workers = worker_count(todo)
    with handle_preemption_signals():
        try:
            say = partial(console.print, markup=False)
            records = follow(todo, run_all(todo, workers if parallel else min(workers, 1), say=say), console)
        except Preempted:
            records = []
        if preemption_requested() or any(record.status in ("preempted", "cancelled") for record in records):
            console.print(f"stopped by a signal; the same command continues with what is not finished ({EXIT_STATUS})")
            return EXIT_STATUS
    return 0


def _report(plan: Plan, store: Store, console: "Console", ran: bool) -> int:
    """Show the results, and what has none; `ran`: each run had a line of its own just now."""
    from lorta.analysis.item_scores import stored_items
    from lorta.analysis.validation import without_score_failed
    from lorta.launch.progress import outcome
    from lorta.planning.titles import titles

    names = titles(plan.specs)
    read = [(store.last(spec.run_id), spec) for spec in plan.specs]
    lacking = [spec.run_id for record, spec in read if record is None]
    _say_what_lacks(lacking, len(plan.specs), store, console)
    if len(lacking) == len(plan.specs):
        return 1
    records = without_score_failed(with_requests(record, spec) for record, spec in read if record is not None)
    failed = [record for record in records if record.status not in ("success", "skipped")]
    if len(plan.specs) == 1:
        if not ran:
            console.print(f"{names[plan.specs[0].run_id]}: {outcome(records[0])}", markup=False)
    else:
        from lorta.reporting.report import write_and_show

        runtime = plan.specs[0].settings.runtime
        results = Path(runtime.results)
        figure = ran or not (results / "figures" / f"{runtime.name}.png").is_file()
        try:
            write_and_show(records, runtime.name, results, figure, stored_items(records, store), console)
        except ValueError as error:  # records that must not share a table, which are kept all the same
            console.print(f"no report: {error}", markup=False)
    for record in failed:
        said = "" if ran else f": {outcome(record)}"
        name = names.get(record.run_id, record.run_id)  # a run of before keeps the id that it had
        console.print(f"{record.status}: {name}, {store.folder(record.run_id)}{said}", markup=False)
    return 1 if failed or lacking else 0


def _say_what_lacks(lacking: Sequence[str], planned: int, store: Store, console: "Console") -> None:
    """Say which runs that were just done have no record that can be read, and what to do."""
    absent = 0
    for run_id in lacking:
        try:
            absent += store.read(run_id) is None
        except UNREADABLE as error:
            console.print(f"left out: {store.folder(run_id)}: {error}; move it away", markup=False)
    if absent:
        console.print(
            f"{absent} of {planned} runs have no record in {store.root}: was it deleted meanwhile? "
            "Start the same command again",
            markup=False,
        )
