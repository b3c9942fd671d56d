"""`lorta plan | status | retry`: the same overrides as run.py, and no torch but where runs are run."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lorta.cli.filters import require_store
from lorta.records.sections import FailureKind
from lorta.system.terminal import counted

if TYPE_CHECKING:
    from lorta.planning.planner import Plan
    from lorta.planning.spec import RunSpec
    from lorta.status.forecast import Forecast
    from lorta.status.states import RunState

BAD_INPUT = 2
MOST_LISTED = 40  # runs of one state
MEBIBYTE = 2**20
STALE = (
    "stale: begun and not finished, or finished with other rows, another model or an earlier protocol; "
    "the command of the sweep runs it again"
)


def declare_overrides(parser: argparse.ArgumentParser) -> None:
    """Take what run.py takes. Several values are a sweep, with -m or without; a recipe's own sweep needs -m."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for run.py: adapter=lora,lorta task=glue")
    parser.add_argument("-m", "--multirun", action="store_true", help="the overrides are a sweep")
    parser.add_argument("--conf", metavar="FOLDER", help="search FOLDER/adapter/NAME.yaml, FOLDER/task/NAME.yaml too")


def declare_store(parser: argparse.ArgumentParser) -> None:
    """Take overrides, or none for everything in a store."""
    declare_overrides(parser)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store, without overrides (default: runs)")


def declare_retry(parser: argparse.ArgumentParser) -> None:
    """Take overrides and the kinds of failures."""
    declare_overrides(parser)
    kinds = ", ".join(get_args(FailureKind))
    parser.add_argument("--kind", help=f"only failures of these kinds, with commas between: {kinds} (default: all)")


def plan(parsed: argparse.Namespace) -> int:
    """Print cells with their parameters, what is done, and what the rest will cost."""
    planned = planned_by(parsed)
    if planned is None:
        return BAD_INPUT
    from lorta.planning.requests import budget_sentences, waiting_sentences
    from lorta.planning.titles import titles
    from lorta.records.store import Store
    from lorta.status.committed import committed_sentence
    from lorta.status.forecast import Past
    from lorta.status.rows import other_rows_sentences, row_lines
    from lorta.status.states import glances, other_code_lines, plan_states
    from lorta.system.provenance import uncommitted_sentence

    states = {state.run_id: state for state in plan_states(planned, titles(planned.runs))}
    there = list(glances(Store(planned.runs[0].settings.runtime.runs).root))
    past = Past(there)
    costs = past.forecasts(spec for spec in planned.runs if spec.run_id not in planned.unsupported)
    for line in _cell_lines(planned, states, costs):
        print(line)
    print(f"{_counts(states.values())}{planned.duplicates}")
    read = [*planned.specs, *(spec for spec, _ in planned.waiting)]
    for line in [*other_code_lines(states.values()), *row_lines(read), *other_rows_sentences(planned, there)]:
        print(line)
    for sentence in budget_sentences(planned, only_off=False):
        print(f"budget: {sentence}")
    for sentence in waiting_sentences(planned):
        print(sentence)
    for sentence in _open_questions(planned):
        print(sentence)
    for sentence in dict.fromkeys(planned.unsupported.values()):
        print(f"not supported: {sentence}")
    if sentence := committed_sentence(planned):
        print(sentence)
    if sentence := uncommitted_sentence():
        print(sentence)
    todo = [spec for spec in planned.runs if states[spec.run_id].state not in ("done", "unsupported")]
    print(_cost_line(todo, costs))
    return 0


def status(parsed: argparse.Namespace) -> int:
    """Print how many runs are in which state, and every one that is not done."""
    from lorta.planning.requests import waiting_sentences
    from lorta.planning.titles import titles
    from lorta.status.states import STATES, glances, other_code_lines, plan_states, store_states

    if parsed.overrides:
        planned = planned_by(parsed)
        if planned is None:
            return BAD_INPUT
        states = plan_states(planned, titles(planned.runs))
        for sentence in waiting_sentences(planned):
            print(sentence)
    else:
        require_store(parsed.runs)
        states = store_states(parsed.runs)
        if imported := sum(bool(record.get("imported")) for record in glances(parsed.runs)):
            print(f"{imported} imported records, which are no runs of this project")
    print(_counts(states))
    for line in other_code_lines(states):
        print(line)
    for name in STATES[1:]:
        listed = [state for state in states if state.state == name]
        for state in listed[:MOST_LISTED]:
            print(f"{name:11s} {state.run_id}  {state.title}{f': {state.why}' if state.why else ''}")
        if len(listed) > MOST_LISTED:
            print(f"{name:11s} and {len(listed) - MOST_LISTED} more")
        if listed and name == "stale":
            print(STALE)
    return 0


def retry(parsed: argparse.Namespace) -> int:
    """Run again what failed or took too long, and nothing else."""
    kinds = set((parsed.kind or ",".join(get_args(FailureKind))).split(","))
    if unknown := kinds - set(get_args(FailureKind)):
        raise ValueError(f"--kind: no kind {', '.join(sorted(unknown))}; there are: {', '.join(get_args(FailureKind))}")
    planned = planned_by(parsed)
    if planned is None:
        return BAD_INPUT
    from rich.console import Console

    from lorta.cli.run import run_plan
    from lorta.planning.planner import Duplicates
    from lorta.planning.titles import titles
    from lorta.status.states import plan_states

    states = plan_states(planned, titles(planned.runs))
    failed = {state.run_id for state in states if state.state == "failed" and state.failure in kinds}
    specs = tuple(spec for spec in planned.runs if spec.run_id in failed)
    if not specs:
        print(f"nothing to retry: none of {len(planned.runs)} runs failed with {', '.join(sorted(kinds))}")
        return 0
    return run_plan(
        replace(planned, specs=specs, trials=(), waiting=(), duplicates=Duplicates()),
        Console(soft_wrap=True),
        parallel=parsed.multirun,
    )


def planned_by(parsed: argparse.Namespace) -> "Plan | None":
    """Return the plan of a command line, None where it is wrong, which has been said."""
    from lorta.cli.run import plan_or_explain
    from lorta.config.overrides import is_sweep

    parsed.multirun = parsed.multirun or is_sweep(parsed.overrides)
    return plan_or_explain(parsed.overrides, parsed.multirun)


def _counts(states: "Iterable[RunState]") -> str:
    from lorta.status.states import STATES

    counts = Counter(state.state for state in states)
    named = {"unsupported": "not supported"}
    parts = [f"{counts[name]:,} {named.get(name, name)}" for name in STATES if counts[name] or name == "done"]
    return f"{counted(sum(counts.values()), 'run')}: {', '.join(parts)}"


def _cell_lines(planned: "Plan", states: "dict[str, RunState]", costs: "dict[str, Forecast | None]") -> Iterator[str]:
    from lorta.planning.titles import swept_values, task_title

    cells: dict[str, list[RunSpec]] = {}
    for spec in planned.runs:
        cells.setdefault(spec.cell_id, []).append(spec)
    width = max(14, *(len(task_title(spec)) for spec in planned.runs))
    swept = swept_values(planned.runs)
    yield f"{'cell':12s}  {'adapter':20s} rank  {'task':{width}s} {'model':12s}   parameters  runs  done  s each"
    for cell, specs in cells.items():
        adapter, settings = specs[0].settings.adapter, specs[0].settings
        rank, cost = adapter.get("rank"), costs.get(specs[0].run_id)
        task = task_title(specs[0])
        done = sum(states[spec.run_id].state == "done" for spec in specs)
        size = "-" if specs[0].run_id in planned.unsupported else _number(specs[0].parameters)
        yield (
            f"{cell:12s}  {adapter['name']:20s} {'-' if rank is None else rank:>4}  {task:{width}s} "
            f"{settings.model.name:12s} {size:>12s}  {len(specs):4d}  {done:4d}  "
            + (f"{cost.seconds:6.1f}" if cost else "     ?")
            + (f"  {values}" if (values := swept[specs[0].run_id]) else "")
        )


def _open_questions(planned: "Plan") -> list[str]:
    """Return how far the questions of a sweep are that adds seeds."""
    asked = planned.specs[0].questions if planned.specs else ()
    if not asked or asked[0].seeds is None:
        return []
    from lorta.reporting.verdicts import verdict_sentences
    from lorta.status.seeds import state

    least, most = asked[0].seeds
    head = f"seeds: {least} to {most}, more for the questions that are open"
    return [head, *verdict_sentences(*state(planned))]


def _number(count: int | None) -> str:
    return "no formula" if count is None else f"{count:,}"


def _cost_line(todo: "Sequence[RunSpec]", costs: "dict[str, Forecast | None]") -> str:
    known = [cost for spec in todo if (cost := costs[spec.run_id])]
    if not todo:
        return "nothing to do"
    if not known:
        return f"{counted(len(todo), 'run')} to do; no past record says how long they take"
    from lorta.launch.local import worker_count

    workers = max(1, worker_count(todo))
    seconds = sum(cost.seconds for cost in known) / len(known) * len(todo) / workers
    memory = max((cost.memory_bytes or 0 for cost in known), default=0)
    guessed = f", {len(todo) - len(known)} of them by the average of the others" if len(known) < len(todo) else ""
    far = max(known, key=lambda cost: _distance(cost.kind)).kind
    return (
        f"{counted(len(todo), 'run')} to do: about {_duration(seconds)} with {workers} at a time, up to "
        f"{memory / MEBIBYTE:,.0f} MiB each (from records of {far} or nearer{guessed})"
    )


def _distance(kind: str) -> int:
    from lorta.status.forecast import KINDS

    return KINDS.index(kind)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
