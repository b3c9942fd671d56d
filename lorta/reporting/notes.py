"""Notes of a table on requested parameter budgets, learning-rate searches and collapsed runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lorta.analysis.summary import Row, Table, counts_as_zero
from lorta.planning.requests import sentence
from lorta.records.record import RunRecord, Tuning


def size_note(row: Row) -> str | None:
    """Return the requested budgets of a table's row, None where the command set the rank itself."""
    budgets = dict.fromkeys(budget for run in row.runs for budget in run.record.budgets)
    return "; ".join(sentence(row.label, budget) for budget in budgets) or None


def edge_note(row: Row, task: str) -> str | None:
    """Return a note if the learning rate of a task is the end of its grid, or all rates collapsed, else None."""
    searches = dict.fromkeys(run.record.tuning for run in row.runs if run.task.name == task)
    edges = [(tuning.chosen, tuning.grid[0]) for tuning in searches if tuning and tuning.on_edge]
    notes = [
        f"its learning rate {chosen:g} is the {'lowest' if chosen == low else 'highest'} tried" for chosen, low in edges
    ]
    if any(tuning and tuning.collapsed and all(tuning.collapsed) for tuning in searches):
        notes.append("every rate of its search collapsed to (nearly) one answer")
    return f"{row.label}, {task}: {'; '.join(notes)}" if notes else None


def collapse_note(row: Row, task: str) -> str | None:
    """Return a note if runs of a task answer (nearly) the same to all rows, with their seeds, else None."""
    text = collapse_text(row, task)
    return f"{row.label}, {task}: {text}" if text else None


def collapse_text(row: Row, task: str) -> str | None:
    """Return how many runs of a task answer (nearly) the same to all rows, with their seeds; None where no run does."""
    runs = [run for run in row.runs if run.task.name == task]
    seeds = sorted(run.record.seed for run in runs if run.record.collapsed)
    if not seeds:
        return None
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    zero = " (an undefined correlation counts as 0)" if any(counts_as_zero(run.record) for run in runs) else ""
    return f"{len(seeds)} of {len(runs)} runs collapsed to (nearly) one answer{zero}, {which}"


def head_sentence(table: Table) -> str:
    """Return which methods score no better than a head alone; empty where all do, or no head was trained alone."""
    heads = [row for row in table.rows if row.adapter == "head_only"]
    if len(heads) != 1:
        return ""
    sign = 1 if table.higher_is_better else -1
    alone = {task: cell.mean for task, cell in heads[0].cells.items() if cell.mean is not None}
    listed: list[str] = []
    for row in table.rows:
        known = [(task, row.cells[task].mean) for task in alone if row.adapter != "head_only"]
        tasks = [task for task, mean in known if mean is not None and sign * mean <= sign * alone[task]]
        listed += [f"{row.label} ({', '.join(map(table.short, tasks))})"] if tasks else []
    return f"No better than a head alone, at these settings: {', '.join(listed)}." if listed else ""


def search_sentence(table: Table) -> str:
    """Return how the learning rates of a table were searched, empty where none was."""
    of_runs = [run.record.tuning for run in table.runs if run.record.tuning]
    searches = list(dict.fromkeys(replace(tuning, task=None) for tuning in of_runs))
    if not searches:
        return ""
    trials = sorted({len(tuning.trials) for tuning in searches})
    rows = sorted({tuning.hold_out for tuning in searches})
    scope = "all" if all(run.record.tuning for run in table.runs) else "some"
    edges = sum(tuning.on_edge for tuning in searches)
    return (
        f"Learning-rate search for {scope} combinations of {_searched(of_runs)}: {_either(trials)} trials each, "
        f"scored on {_either(rows)} rows held out from the training data.{_choice(searches)}{_steps(searches)} {edges} "
        f"of {len(searches)} chosen learning rates are the lowest or the highest tried.{_all_collapsed(searches)}"
    )


def _searched(searches: Sequence[Tuning]) -> str:
    """Return what each had a search of its own, and whose rate tasks took that had none."""
    tasks = sorted({tuning.task for tuning in searches if tuning.task})
    return f"adapter and size, on {' and '.join(tasks)} for the other tasks too" if tasks else "adapter, size and task"


def _choice(searches: Sequence[Tuning]) -> str:
    """Return which rate was chosen, empty where it is the best one."""
    lowest = {tuning.choice == "one_se" for tuning in searches}
    if lowest == {False}:
        return ""
    which = "" if lowest == {True} else " in some of them"
    return f" The lowest rate within one standard error of the best one was chosen{which}."


def _steps(searches: Sequence[Tuning]) -> str:
    """Return what the searches could spend and spent, empty where it is not known."""
    spent = sorted({tuning.steps for tuning in searches if tuning.steps is not None})
    most = sorted({tuning.most_steps for tuning in searches if tuning.most_steps is not None})
    if not spent or not most:
        return ""
    used = f"{spent[0]:,}" if len(spent) == 1 else f"{spent[0]:,} to {spent[-1]:,}"
    return (
        f" Every search had a budget of {' or '.join(f'{steps:,}' for steps in most)} optimizer steps and used {used}."
    )


def _all_collapsed(searches: Sequence[Tuning]) -> str:
    """Return of how many searches every trial collapsed, empty where there is none."""
    count = sum(bool(tuning.collapsed and all(tuning.collapsed)) for tuning in searches)
    if not count:
        return ""
    return (
        f" In {count} of {len(searches)} searches every rate collapsed to (nearly) one answer: they chose nothing good."
    )


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def asked_columns(records: Sequence[RunRecord]) -> Mapping[str, Callable[[RunRecord], str]]:
    """Return column -> text for a table of runs; empty where no command requested a budget or a search."""
    columns: dict[str, Callable[[RunRecord], str]] = {}
    if any(record.budgets for record in records):
        columns["budget_requested"] = lambda record: " ".join(str(budget.asked) for budget in record.budgets)
        columns["budget_distance"] = lambda record: " ".join(str(budget.distance) for budget in record.budgets)
    if any(budget.counts == "trained" for record in records for budget in record.budgets):
        columns["budget_matched"] = lambda record: " ".join(str(budget.achieved) for budget in record.budgets)
        columns["budget_counts"] = lambda record: " ".join(budget.counts for budget in record.budgets)
    if any(record.tuning for record in records):
        columns["tuning_grid"] = lambda record: _listed(record.tuning and record.tuning.grid)
        columns["tuning_scores"] = lambda record: _listed(record.tuning and record.tuning.scores)
        columns["tuning_trials"] = lambda record: str(len(record.tuning.trials)) if record.tuning else ""
        columns["tuning_on_edge"] = lambda record: str(record.tuning.on_edge) if record.tuning else ""
    if any(record.tuning and record.tuning.steps for record in records):
        columns["tuning_steps"] = lambda record: str(record.tuning.steps or "") if record.tuning else ""
    return columns


def spread_columns(
    records: Sequence[RunRecord],
) -> Mapping[str, Callable[[RunRecord], float | bool | None]]:
    """Return column -> value for a table of runs; empty where no record has the spread of its answers."""
    if not any(record.spread for record in records):
        return {}
    return {
        "predictions_std": lambda record: record.spread and record.spread.predictions_std,
        "labels_std": lambda record: record.spread and record.spread.labels_std,
        "predicted_classes": lambda record: record.spread and record.spread.predicted_classes,
        "label_classes": lambda record: record.spread and record.spread.label_classes,
        "collapsed": lambda record: record.spread and record.spread.collapsed,
    }


def _listed(values: Iterable[float | None] | None) -> str:
    return " ".join(str(value) for value in values or ())
