"""Where a task's rows come from: the embedded language, local JSON lines, or the hub; the same columns from each.

Reading and checking need no torch: every file of a sweep is checked before anything runs.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from experiments.files import half_character, read_lines
from lorta.api.task import DataPlan, Source
from lorta.config.settings import DataSettings
from lorta.embedded.tasks import EMBEDDED_REVISION, EMBEDDED_TASKS, embedded_fingerprint, embedded_rows
from lorta.models.hub import download, require_commit, require_file
from lorta.models.hub_cache import HubFile
from lorta.records.row_counts import KEEP, RowCount

Row = Mapping[str, Any]
R = TypeVar("R")
MOST_PROBLEMS_PER_FILE = 3


class RowCheck(Protocol):
    """Knows what a row must have."""

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None."""
        ...


@dataclass(frozen=True)
class Columns:
    """What a row must have: text columns, and a label that is a class or, for one label, a number."""

    text: tuple[str, ...]
    labels: int

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None."""
        if not isinstance(row, dict):
            return f"a JSON object is needed, found {type(row).__name__}"
        missing = [name for name in (*self.text, "label") if name not in row]
        if missing:
            return f"column {', '.join(missing)} is missing; it has {', '.join(row)}"
        wrong = [name for name in self.text if not isinstance(row[name], str)]
        if wrong:
            return f"column {', '.join(wrong)} must be text"
        if halves := halved_texts(row, self.text):
            return halves
        label = row["label"]
        number = isinstance(label, int | float) and not isinstance(label, bool)
        if self.labels == 1:
            return None if number and 0.0 <= label <= 5.0 else f"label must be a number from 0 to 5, found {label!r}"
        fits = number and isinstance(label, int) and 0 <= label < self.labels
        return None if fits else f"label must be a whole number from 0 to {self.labels - 1}, found {label!r}"


def halved_texts(row: Row, columns: Sequence[str]) -> str | None:
    """Return a sentence about the first column with half of a surrogate pair, which no tokenizer reads, or None."""
    for name in columns:
        half = half_character(row[name]) if isinstance(row.get(name), str) else None
        if half is not None:
            return f"column {name} holds {half}, half of a surrogate pair: add the other half, or leave it out"
    return None


def choose_source(data: DataSettings, model_default: str) -> Source:
    """Return where rows come from when `data.source` is auto. Raises ValueError for settings that contradict."""
    if data.source == "local" and data.root is None:
        raise ValueError("data.source=local needs data.root=FOLDER")
    if data.source in ("embedded", "hub") and data.root is not None:
        raise ValueError(f"data.root={data.root} has no effect with data.source={data.source}: leave one out")
    if data.source != "auto":
        return data.source
    return "local" if data.root is not None else "embedded" if model_default == "embedded" else "hub"


def plan_embedded(name: str, splits: Mapping[str, str]) -> DataPlan:
    """Return the plan for the embedded language's version of a task. Raises ValueError when there is none."""
    task = name.rpartition("/")[2]
    if task not in EMBEDDED_TASKS:
        raise ValueError(
            f"task={name} has no embedded data (there are {', '.join(EMBEDDED_TASKS)}): set data.root=FOLDER"
        )
    prints = {use: embedded_fingerprint(task, split) for use, split in splits.items()}
    return DataPlan("embedded", EMBEDDED_REVISION, prints)


def plan_local(
    name: str, root: str, splits: Mapping[str, str], columns: RowCheck, keep: Callable[[Row], bool] | None = None
) -> DataPlan:
    """Return the plan for local files, all of whose lines were checked. Raises ValueError, one problem a line.

    Rows that `keep` leaves out need not be in order; it raises ValueError for a row that it cannot judge.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data.root={root}: no such folder")
    problems: list[str] = []
    prints: dict[str, str] = {}
    counts: dict[str, RowCount] = {}
    for use, split in splits.items():
        try:
            file = local_file(folder, name, split)
            prints[use] = hashlib.sha256(file.read_bytes()).hexdigest()
            of_file, counts[use] = _file_problems(file, columns, keep)
            problems += of_file
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return DataPlan("local", "sha256", prints, counts)


def local_file(folder: Path, name: str, split: str) -> Path:
    """Return FOLDER/<family>/<task>/<split>.jsonl or its .gz; `validation` also serves for MNLI's validation_matched.

    Raises ValueError when there is none.
    """
    splits = dict.fromkeys((split, split.partition("_")[0]))
    candidates = [folder / name / f"{part}{ending}" for part in splits for ending in (".jsonl", ".jsonl.gz")]
    for file in candidates:
        if file.is_file():
            return file
    raise ValueError(f"task={name}: neither {candidates[0]} nor {candidates[1].name} exists")


def _file_problems(file: Path, columns: RowCheck, keep: Callable[[Row], bool] | None) -> tuple[list[str], RowCount]:
    """Return what is wrong with a file's rows, and how many there are and are kept."""
    problems: list[str] = []
    rows, kept, wrong, identities = 0, 0, 0, Identities()
    for number, row in _lines(file, problems):
        rows += 1
        try:
            if keep is not None and isinstance(row, dict) and not keep(row):
                continue
            problem = columns.problem(row) or identities.problem(row)
        except ValueError as error:
            problem = str(error)
        kept += 1
        if problem:
            wrong += 1
            if wrong <= MOST_PROBLEMS_PER_FILE:
                problems.append(f"{file}, line {number}: {problem}")
    if wrong > MOST_PROBLEMS_PER_FILE:
        problems.append(
            f"{file}: {wrong:,} of {rows:,} rows cannot be used, of which {MOST_PROBLEMS_PER_FILE} are named"
        )
    nothing = f"{file}: task.source.keep keeps none of {rows} rows" if rows else f"{file}: no rows"
    return problems or ([] if kept else [nothing]), RowCount(rows).without(KEEP, rows - kept)


def _lines(file: Path, problems: list[str]) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row) as far as a file can be read; why it cannot further becomes one of the problems."""
    try:
        yield from read_lines(file)
    except ValueError as error:
        problems.append(str(error))


class Identities:
    """The `idx` of rows: whole numbers of 64 bits in every row, or texts in every row; else a row's position serves."""

    def __init__(self) -> None:
        self.kind: str | None = None

    def problem(self, row: Row) -> str | None:
        """Return what is wrong with the next row's `idx`, or None."""
        value = row.get("idx")
        kind = "neither whole number nor text"
        if isinstance(value, str):
            kind = "a text"
            if half := half_character(value):
                return f"idx holds {half}, half of a surrogate pair: add the other half, or leave it out"
        elif isinstance(value, int) and not isinstance(value, bool):
            kind = "a whole number"
            if not -(2**63) <= value < 2**63:
                return f"idx must fit into 64 bits, found {value}"
        self.kind = self.kind or kind
        if kind != self.kind:
            return f"idx is {kind}, in the rows before {self.kind}: give every row one of one kind, or none"
        return None


def identities(rows: Sequence[Row]) -> list[Any]:
    """Return the `idx` of all rows, or their positions where they have none. Raises ValueError for a mixture."""
    kinds = Identities()
    for position, row in enumerate(rows):
        if problem := kinds.problem(row):
            raise ValueError(f"row {position}: {problem}")
    return list(range(len(rows))) if (kinds.kind or "neither").startswith("neither") else [row["idx"] for row in rows]


def plan_hub(name: str, hub_id: str, revision: str, splits: Mapping[str, str]) -> DataPlan:
    """Return the plan for a hub dataset at a pinned revision. Raises ValueError when it is out of reach."""
    what, configuration = f"task={name} ({hub_id})", name.rpartition("/")[2]
    require_commit(what, "task.revision", hub_id, revision, "dataset")
    remedy = f"hf download {hub_id} --repo-type dataset --revision {revision} --include '{configuration}/*'"
    for split in splits.values():
        file = HubFile(hub_id, f"{configuration}/{split}-00000-of-00001.parquet", revision, "dataset")
        require_file(what, remedy, file)
    prints = {use: f"{hub_id}@{revision}/{configuration}/{split}" for use, split in splits.items()}
    return DataPlan("hub", revision, prints)


def read_rows(plan: DataPlan, name: str, split: str, data: DataSettings, hub_id: str) -> list[Row]:
    """Return a split's rows from the planned source, in the source's order."""
    task = name.rpartition("/")[2]
    if plan.source == "embedded":
        return list(embedded_rows(task, split))
    if plan.source == "local":
        assert data.root is not None
        return [row for _, row in read_lines(local_file(Path(data.root).expanduser(), name, split))]
    from pyarrow import parquet

    file = HubFile(hub_id, f"{task}/{split}-00000-of-00001.parquet", plan.revision, "dataset")
    return parquet.read_table(download(file)).to_pylist()


def capped(rows: Sequence[R], count: RowCount, most: int | None, use: str, name: str) -> tuple[list[R], RowCount]:
    """Return what `cap` leaves of the rows of a split, which `use` names, and their count."""
    return cap(rows, most, name), count.at_most(most, use)


def cap(rows: Sequence[R], most: int | None, name: str) -> list[R]:
    """Return at most `most` rows: the first of a shuffle that depends on the task's name, not on the run's seed."""
    if most is None or most >= len(rows):
        return list(rows)
    order = list(range(len(rows)))
    random.Random(f"lorta {name}").shuffle(order)
    return [rows[index] for index in sorted(order[:most])]
