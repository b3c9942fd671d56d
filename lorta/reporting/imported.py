"""What tables say of runs that were not made here: their source, what all of them share, and what cannot be known."""

from collections.abc import Iterable

from lorta.analysis.imported import is_counted, protocol, task_protocol
from lorta.analysis.summary import Run, Table
from lorta.records.canonical import sha256

SOURCES = {"peft": "PEFT's method_comparison", "lm_eval": "lm-evaluation-harness"}
MOST_CHARACTERS = 40  # of a value; a longer one is named by its hash
COUNTED = (
    "Of these runs only the number of right answers is known, not which rows they are: methods are compared as "
    "independent samples, not row by row, which finds fewer differences."
)


def of_protocol(table: Table) -> list[str]:
    """Return in what the protocol of a table differs from those of other tables of its kind, for its title."""
    return [f"{name} {_short(value)}" for name, value in table.differs]


def imported_sentences(table: Table) -> list[str]:
    """Return the notes of a table of imported runs; empty for one of runs made here."""
    imported = table.runs[0].record.imported
    if imported is None:
        return []
    files = {name: digest for run in table.runs for name, digest in _files(run).items()}
    digest, source = sha256(files)[:12], SOURCES[imported.format]
    shared = ", ".join(f"{name} {_short(value)}" for name, value in protocol(table.runs[0].record)[1:])
    return [
        f"Imported from {source}, not run here: {_number(len(files), 'file')}, SHA-256 in the records (of all of "
        f"them: {digest}).",
        f"Protocol of all runs: {shared}.",
        *_of_tasks(table),
        *_noted(table),
        *(
            []
            if all(row.sizes_known for row in table.rows)
            else ["Their source does not say how many weights are trained."]
        ),
        *([COUNTED] if any(is_counted(run.record) for run in table.runs) else []),
    ]


def _files(run: Run) -> dict[str, str]:
    return run.record.imported.files if run.record.imported else {}


def _of_tasks(table: Table) -> Iterable[str]:
    """Say what the runs of each task share beside the protocol of all."""
    texts = {
        table.short(run.task.name): ", ".join(f"{name} {_short(value)}" for name, value in task_protocol(run.record))
        for run in table.runs
    }
    return [f"Protocol of {task}: {text}." for task, text in sorted(texts.items()) if text]


def _noted(table: Table) -> Iterable[str]:
    """Say which commits the runs are of, where there are several: they do not separate tables, and can matter."""
    commits: dict[str, int] = {}
    for run in table.runs:
        if run.record.imported and (commit := run.record.imported.noted.get("commit")):
            commits[str(commit)[:12]] = commits.get(str(commit)[:12], 0) + 1
    if len(commits) < 2:
        return []
    listed = ", ".join(f"{commit} ({_number(count, 'run')})" for commit, count in sorted(commits.items()))
    return [f"The runs are of {len(commits)} commits of their source: {listed}."]


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _short(value: str) -> str:
    return value if len(value) <= MOST_CHARACTERS else f"SHA-256 {sha256(value)[:8]}"
