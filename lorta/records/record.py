"""RunRecord: everything that leaves a run, as one JSON object. Tables, plots and reports read nothing else.

A record is written with status `running` before the work starts, when most sections are still None, and again when the
run ends. Rules: null with a reason in `reasons`, never a sentinel; units in names; every failure is a record; parameter
counts of adapter, head and the rest apart; predictions and history in side files with their sha256.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from pydantic_core import from_json

from lorta.records.codec import decode, encode
from lorta.records.sections import (
    AdapterSection,
    Batch,
    Budget,
    Code,
    Environment,
    Failure,
    Forgetting,
    Hardware,
    Imported,
    Memory,
    Merging,
    ModelSection,
    Parameters,
    ProtocolSection,
    Question,
    Score,
    SideFile,
    Split,
    Spread,
    Status,
    Storage,
    TaskSection,
    Throughput,
    Timing,
    Tracking,
    Tuning,
)

SCHEMA_VERSION = 1
LATER_SCHEMA = (
    "written by a later version of lorta, stays as it is: update lorta, or give these runs a store of their own "
    "(runtime.runs=FOLDER)"
)
RowOrder = Literal["random", "groups of like length", "from long to short"]
SECTIONS_OF_A_RESULT = ("ended_at", "adapter", "task", "model", "protocol", "params", "time", "metrics")

__all__ = [
    "SCHEMA_VERSION",
    "AdapterSection",
    "Batch",
    "Budget",
    "Code",
    "Environment",
    "Failure",
    "Forgetting",
    "Hardware",
    "Imported",
    "Memory",
    "Merging",
    "ModelSection",
    "Parameters",
    "ProtocolSection",
    "Question",
    "RunRecord",
    "Score",
    "SideFile",
    "Split",
    "Spread",
    "Storage",
    "TaskSection",
    "Throughput",
    "Timing",
    "Tracking",
    "Tuning",
]


class LaterSchema(ValueError):
    """A record of a later version of this package."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run: identity, outcome, cost and provenance. Use `dataclasses.replace` to fill it in.

    Times are ISO-8601 in UTC. Raises ValueError when the status and the sections contradict each other.
    """

    # which rules made `run_id` (identity.py); first, so that the head of a file tells. 1: class paths were hashed
    identity_version: int = field(default=1, metadata={"added": True})
    run_id: str  # 12 hex digits
    cell_id: str  # the same for all seeds of a cell
    config_hash: str  # sha256 of the identity of `config`
    status: Status
    created_at: str
    seed: int
    config: dict[str, Any]  # the resolved groups that identity is made of
    overrides: tuple[str, ...]  # as typed on the command line
    choices: dict[str, str]  # configuration group -> chosen file
    schema_version: int = SCHEMA_VERSION
    attempt: int = 1  # how often the run was started
    resumed_from_step: int | None = field(default=None, metadata={"added": True})  # None: from the first step
    slurm_job: str | None = field(default=None, metadata={"added": True})  # 12_3: task 3 of array 12
    started_at: str | None = None
    ended_at: str | None = None
    failure: Failure | None = None
    reason: str | None = None  # why the run was skipped, a sentence
    adapter: AdapterSection | None = None
    task: TaskSection | None = None
    model: ModelSection | None = None
    protocol: ProtocolSection | None = None
    params: Parameters | None = None
    tuning: Tuning | None = field(default=None, metadata={"added": True})  # None: the rate was given as it is
    budgets: tuple[Budget, ...] = field(default=(), metadata={"added": True})  # empty: the size was given as it is
    questions: tuple[Question, ...] = field(default=(), metadata={"added": True})  # of the study that the run is for
    storage: Storage | None = None
    memory: Memory | None = None
    time: Timing | None = None
    throughput: Throughput | None = None
    batch: Batch | None = None
    metrics: dict[str, dict[str, Score]] | None = None  # split -> metric -> score
    spread: Spread | None = field(default=None, metadata={"added": True})  # of the primary split's answers
    forgetting: Forgetting | None = field(default=None, metadata={"added": True})
    merging: Merging | None = field(default=None, metadata={"added": True})
    history_file: SideFile | None = None
    predictions_file: SideFile | None = None
    train_loss_final: float | None = None
    grad_norm_max: float | None = None
    nan_steps: int | None = None
    code: Code | None = None
    environment: Environment | None = None
    hardware: Hardware | None = None
    tracking: Tracking | None = None
    imported: Imported | None = field(default=None, metadata={"added": True})  # None: the run was made here
    env_fingerprint: str | None = None  # timings of different fingerprints are not comparable
    reasons: dict[str, str] = field(default_factory=dict[str, str])  # dotted field -> why it is null

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.run_id):
            raise ValueError(f"RunRecord.run_id must be 12 hex digits, got {self.run_id!r}.")
        if self.status in ("failed", "timeout", "preempted") and self.failure is None:
            raise ValueError(f"a RunRecord with status {self.status} needs a failure section.")
        if self.status == "skipped" and not self.reason:
            raise ValueError("a RunRecord with status skipped needs a reason, one sentence.")
        unknown = {"params"} if self.imported is not None else set[str]()  # a source may not count weights
        missing = [name for name in SECTIONS_OF_A_RESULT if getattr(self, name) is None and name not in unknown]
        if self.status == "success" and missing:
            raise ValueError(f"a RunRecord with status success needs {', '.join(missing)}.")

    @property
    def is_trial(self) -> bool:
        """Whether the run was scored on held-out training rows, which no table of results may hold.

        A number of rows says so; a fraction splits a single file of a user, and is no trial.
        """
        data: Mapping[str, Any] = self.config.get("data") or {}
        return isinstance(data.get("holdout"), int) or data.get("hold_out") is not None

    @property
    def seeds(self) -> tuple[int, int, int]:
        """The seeds of initialisation, data order and dropout: `seed`, but for those that the configuration names."""
        init, order, dropout = (
            int(self.config.get(name, self.seed)) for name in ("init_seed", "order_seed", "dropout_seed")
        )
        return init, order, dropout

    @property
    def has_separate_seeds(self) -> bool:
        """Whether the three seeds differ: such runs show where variance comes from, and are in no table of scores."""
        return set(self.seeds) != {self.seed}

    @property
    def row_order(self) -> RowOrder | None:
        """In which order rows were trained on; None where the task has its own, or nobody knows."""
        trainer: Mapping[str, Any] = self.config.get("trainer") or {}
        if "group_by_length" not in trainer or (self.task is not None and self.task.name == "folding"):
            return None
        if not trainer["group_by_length"]:
            return "random"
        return "groups of like length" if trainer.get("shuffle_groups") else "from long to short"

    @property
    def primary_score(self) -> Score | None:
        """The score that tables show, or None while there is none."""
        if self.task is None or self.metrics is None:
            return None
        return self.metrics.get(self.task.split_primary, {}).get(self.task.metric_primary)

    @property
    def collapsed(self) -> bool:
        """Whether the model answers, nearly, the same to all rows; False where that was not recorded."""
        return self.spread is not None and self.spread.collapsed

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as JSON: fields in the order above, mapping keys sorted, one line unless indented.

        NaN and infinity in a measured field become null, with the reason added to `reasons`. Raises ValueError, with
        the field's name, for one inside `config` and for values that are not JSON.
        """
        non_finite: dict[str, str] = {}
        values = encode(self, "", non_finite)
        values["reasons"] = dict(sorted({**values["reasons"], **non_finite}.items()))
        return json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> "RunRecord":
        """Read a record; `source` names the file in errors. Raises ValueError for anything that does not fit."""
        try:
            values = _parse(text)
            if isinstance(values, dict) and values.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:  # pyright: ignore[reportUnknownMemberType]
                raise _other_schema(values)
            return decode(cls, values, "")
        except LaterSchema as error:
            raise LaterSchema(f"{source} is not a record of schema {SCHEMA_VERSION}: {error}") from error
        except ValueError as error:
            raise ValueError(
                f"{source} is not a record of schema {SCHEMA_VERSION}: {str(error).rstrip('.')}."
            ) from error


def later_schema(values: Any) -> bool:
    """Return whether a record's JSON values are of a later version of this package, which alone may change them."""
    version = values.get("schema_version") if isinstance(values, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return isinstance(version, int) and version > SCHEMA_VERSION


def _other_schema(values: Any) -> ValueError:
    if later_schema(values):
        return LaterSchema(f"it has schema {values['schema_version']}, {LATER_SCHEMA}")
    return ValueError("read it with the version of lorta that wrote it")


def _parse(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)  # three times as fast as json.loads, for tables of 10,000 records
    except ValueError:
        return json.loads(text, parse_constant=_refuse_constant)  # says what is wrong


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; a missing number is null, with its reason in 'reasons'")
