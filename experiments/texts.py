"""Where the rows of a decoder's task come from: the embedded texts, local JSON lines, or one file of a hub dataset.

No torch. Hub datasets of this family have one split; which rows of it are held out is written in the task's YAML.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simpleeval import InvalidExpression, simple_eval

from experiments.files import read_lines
from experiments.rows import Row, RowCheck, choose_source, halved_texts, local_file, plan_local
from lorta.api.task import DataPlan
from lorta.config.settings import DataSettings
from lorta.embedded.instructions import INSTRUCT_REVISION, text_fingerprint, text_rows
from lorta.models.hub import download, require_commit, require_file
from lorta.models.hub_cache import HubFile
from lorta.records.row_counts import KEEP, RowCount, RowsUnusable
from lorta.training.context import DataSplits

if TYPE_CHECKING:
    from experiments.tokenised import Tokenised

SPLITS = {"train": "train", "evaluation": "validation"}
PROMPT_TOO_LONG = "the prompt alone fills data.max_length"
LEAVE_OUT = "(task.source.keep can leave such rows out)"


@dataclass(frozen=True)
class TextSource:
    """The three places of a task's rows. `keep` is a condition on columns of local and hub rows; None keeps all."""

    embedded: str  # kind of lorta.embedded.instructions
    local: str  # folder below data.root, with train.jsonl and validation.jsonl, or .jsonl.gz
    hub_id: str
    revision: str | None  # None: no public source quotes one
    hub_file: str  # JSON (a list of rows) or Parquet
    held_out: float  # of the hub's rows: how many (above 1), or which fraction
    held_out_from: Literal["shuffle", "start"]  # shuffle: drawn without regard to the run's seed
    keep: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a hold-out of nothing."""
        if not self.held_out > 0:
            raise ValueError(
                f"task.source.held_out={self.held_out}: a number of rows, or a fraction, above 0 is needed"
            )


def plan_texts(name: str, source: TextSource, check: RowCheck, data: DataSettings, model_default: str) -> DataPlan:
    """Choose the source and check every line of local files. Raises ValueError, one problem a line."""
    chosen = choose_source(data, model_default)
    if chosen == "embedded":
        prints = {use: text_fingerprint(source.embedded, split) for use, split in SPLITS.items()}
        return DataPlan("embedded", INSTRUCT_REVISION, prints)
    if chosen == "local":
        return plan_local(source.local, data.root or "", SPLITS, check, condition(source.keep))
    if source.revision is None:
        raise ValueError(
            f"task={name}: no commit of {source.hub_id} is pinned: set task.source.revision=COMMIT, "
            "or data.root=FOLDER for local files, or data.source=embedded"
        )
    _require_file(name, source)
    pinned = f"{source.hub_id}@{source.revision}/{source.hub_file} {source.held_out} {source.held_out_from}"
    return DataPlan("hub", source.revision, {use: f"{pinned} {split}" for use, split in SPLITS.items()})


def _require_file(name: str, source: TextSource) -> None:
    what, file = f"task={name} ({source.hub_id})", _hub_file(source)
    require_commit(what, "task.source.revision", file.hub_id, file.revision, "dataset")
    require_file(what, f"hf download {file.hub_id} {file.name} --repo-type dataset --revision {file.revision}", file)


def _hub_file(source: TextSource) -> HubFile:
    assert source.revision is not None, "a plan has refused it"
    return HubFile(source.hub_id, source.hub_file, source.revision, "dataset")


def read_texts(
    plan: DataPlan, source: TextSource, data: DataSettings, split: str, check: RowCheck
) -> tuple[list[Row], RowCount]:
    """Return a split's rows, filtered, in the source's order, and how many there were.

    Rows that `keep` drops from a hub dataset of one split count as dropped from training. Raises ValueError for a hub
    row that lacks something.
    """
    if plan.source == "embedded":
        rows: list[Row] = [*text_rows(source.embedded, split)]
        return rows, RowCount(len(rows))
    if plan.source == "local":
        assert data.root is not None
        file = local_file(Path(data.root).expanduser(), source.local, split)
        read = [row for _, row in read_lines(file)]
        rows = _kept(read, source.keep)
        return rows, RowCount(len(read)).without(KEEP, len(read) - len(rows))
    read = _hub_rows(source)
    rows = _kept(read, source.keep)
    for number, row in enumerate(rows):
        if problem := check.problem(row):
            raise ValueError(f"{source.hub_id}@{source.revision}, kept row {number}: {problem}")
    of_split = held_out(rows, source)[split]
    dropped = len(read) - len(rows) if split == "train" else 0
    return of_split, RowCount(len(of_split) + dropped).without(KEEP, dropped)


def both_left(train: "Tokenised", evaluation: "Tokenised", max_length: int) -> DataSplits:
    """Return both splits. Raises RowsUnusable, with what became of the rows of both, where no row is left of one."""
    counts = {"train": train.count, "evaluation": evaluation.count}
    for use, count in counts.items():
        if count.used == 0:
            raise RowsUnusable(f"data.max_length={max_length}: no row is left for {use}, {count}; raise it", counts)
    return DataSplits(train.rows, evaluation.rows, counts)


def _hub_rows(source: TextSource) -> list[Row]:
    from pyarrow import parquet

    file = download(_hub_file(source))
    if source.hub_file.endswith(".parquet"):
        return parquet.read_table(file).to_pylist()
    return json.loads(file.read_text(encoding="utf-8"))


def held_out(rows: Sequence[Row], source: TextSource) -> dict[str, list[Row]]:
    """Return train and validation rows of a dataset with one split, each in the source's order."""
    count = int(source.held_out if source.held_out > 1 else source.held_out * len(rows))
    order = list(range(len(rows)))
    if source.held_out_from == "shuffle":
        random.Random(f"lorta {source.hub_id}").shuffle(order)
    chosen = set(order[:count])
    return {
        "train": [row for number, row in enumerate(rows) if number not in chosen],
        "validation": [row for number, row in enumerate(rows) if number in chosen],
    }


def _kept(rows: Sequence[Row], keep: str | None) -> list[Row]:
    """Return the rows that meet the condition. Raises ValueError when it names what a row lacks, or none is left."""
    meets = condition(keep)
    kept = list(rows) if meets is None else [row for row in rows if meets(row)]
    if not kept:
        raise ValueError(f"task.source.keep='{keep}' keeps none of {len(rows)} rows")
    return kept


def condition(keep: str | None) -> Callable[[Row], bool] | None:
    """Return whether a row meets `task.source.keep`, None for no condition.

    The function raises ValueError for a condition that is none, or that names what a row lacks.
    """
    if keep is None:
        return None

    def meets(row: Row) -> bool:
        try:
            return bool(simple_eval(keep, names=dict(row)))
        except (InvalidExpression, SyntaxError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ValueError(f"task.source.keep='{keep}': {error}; columns: {', '.join(row)}") from error

    return meets


def text_problem(
    row: Any, needed: Sequence[str], optional: Sequence[str] = (), empty: Sequence[str] = ()
) -> str | None:
    """Return what is wrong with a row of texts, or None; only those of `empty` and `optional` may be empty."""
    if not isinstance(row, dict):
        return f"a JSON object is needed, found {type(row).__name__}"
    missing = [name for name in needed if name not in row]
    if missing:
        return f"column {', '.join(missing)} is missing; it has {', '.join(row)}"
    wrong = [name for name in needed if not isinstance(row[name], str)]
    wrong += [name for name in optional if not isinstance(row.get(name) or "", str)]
    if wrong:
        return f"column {', '.join(wrong)} must be text"
    if halves := halved_texts(row, (*needed, *optional)):
        return halves
    bare = [name for name in needed if name not in empty and not row[name].strip()]
    return f"column {', '.join(bare)} is empty {LEAVE_OUT}" if bare else None
