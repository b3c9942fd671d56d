"""The typed sections of a run record: one dataclass per section, units in the field names, no torch.

Fields, units and rules follow the recommended record of the PEFT benchmark peers: `None` is never a sentinel, and
`RunRecord.reasons` says why a field is null.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from lorta.records.row_counts import RowCount

Status = Literal["planned", "running", "success", "failed", "timeout", "preempted", "cancelled", "skipped"]
FailureKind = Literal["oom", "nan", "data", "config", "timeout", "preempted", "infra", "bug"]
Source = Literal["embedded", "local", "hub"]
Selection = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended without a result."""

    kind: FailureKind
    type: str  # the exception's class name
    message: str
    phase: str  # setup, data, train, eval, save, check
    step: int | None = None  # optimiser steps done when it happened
    traceback_file: str | None = None  # relative to the run's folder


@dataclass(frozen=True, kw_only=True)
class AdapterSection:
    """Which method was attached, and with which settings."""

    name: str
    rank: int | None  # None for a method that has no rank
    projections: tuple[str, ...] | None  # roles, in canonical order
    learning_rate: float | None  # of the adapter; None when nothing but the head is trained
    head_learning_rate: float | None
    settings: dict[str, Any]  # the method's own configuration, resolved


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split as it was used."""

    rows: int
    fingerprint: str  # sha256 of the rows, or of revision and split name where the hub fixes them
    read: int | None = field(default=None, metadata={"added": True})  # None: it was not counted, as in older records
    dropped: dict[str, int] | None = field(default=None, metadata={"added": True})  # reason -> rows read and not used
    noted: dict[str, int] | None = field(default=None, metadata={"added": True})  # what is said of how many rows used

    @property
    def count(self) -> RowCount | None:
        """What became of the rows that were read; None where they were not counted."""
        return None if self.read is None else RowCount(self.read, self.dropped or {}, self.noted or {})


@dataclass(frozen=True, kw_only=True)
class TaskSection:
    """Which problem was solved, on which data. Records of different `protocol` are never put in one table."""

    name: str
    protocol: int  # raised when a change of the task's code moves the numbers
    source: Source
    revision: str
    splits: dict[str, Split]
    split_primary: str  # the split whose score goes into tables
    metric_primary: str
    higher_is_better: bool
    test_is_validation: (
        bool  # True for GLUE, whose test labels are not public: the reported split is also the dev split
    )
    max_train_samples: int | None  # cap on the training rows, None for all
    max_eval_samples: int | None = None  # cap on the scored rows, None for all
    # names of the classes, in the order of the outputs; None: the task's settings say all
    labels: tuple[str, ...] | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which backbone was adapted."""

    name: str
    id: str
    revision: str | None
    dtype: str
    parameters_total: int | None  # these three are None where an imported run does not say them
    tokenizer_sha256: str | None
    padding_side: str | None
    pad_token_id: int | None
    weights_sha256: str | None = None
    pad_token: str | None = field(default=None, metadata={"added": True})
    quantization: str | None = field(default=None, metadata={"added": True})  # None: weights as they are
    license: str | None = field(default=None, metadata={"added": True})  # None: the model's files do not state it
    # parameters beside the head that the checkpoint lacks: drawn from the run's seed, trained and saved with the head
    drawn: tuple[str, ...] = field(default=(), metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class ProtocolSection:
    """How the run was trained and which checkpoint was scored."""

    selection: Selection
    tuned: bool  # whether the learning rate was searched for this adapter
    epochs: float | None  # None where an imported run does not say it
    max_steps: int | None  # None when the epochs decide


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A size that was asked for with `budget=`, and the nearest one that the method has on this model."""

    asked: int  # weights that `counts` says; the head is no part of it
    achieved: int | None  # by the closed form, of the same weights; None for a method without one
    distance: float | None  # achieved / asked - 1
    key: str | None  # what was solved for; None for a method that has one size
    value: int | None
    # adapter: the weights that a method adds (or selects); trained: with what else it trains, norms for example
    counts: Literal["adapter", "trained"] = field(default="adapter", metadata={"added": True})
    other: int = field(default=0, metadata={"added": True})  # the part of `achieved` that is no adapter weight


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a rate was chosen: one trial for every rate of the grid and every seed, on held-out training rows."""

    key: str  # learning_rate or head_learning_rate, of the trainer
    grid: tuple[float, ...]  # rising
    scores: tuple[float | None, ...]  # of the grid's rates, the primary metric; None: diverged or undefined
    chosen: float
    on_edge: bool  # the lowest or the highest of the grid: a better one may lie beyond
    hold_out: int  # rows
    seeds: tuple[int, ...]  # of the trials
    trials: tuple[str, ...]  # their signatures: what the search cost
    # None in older records, whose trials were whole runs
    stopped_after: tuple[float, ...] | None = field(
        default=None, metadata={"added": True}
    )  # by rate: share of the steps
    steps: int | None = field(default=None, metadata={"added": True})  # optimizer steps of all trials together
    most_steps: int | None = field(default=None, metadata={"added": True})  # that every search like this one may take
    collapsed: tuple[bool, ...] | None = field(default=None, metadata={"added": True})  # by rate: on one seed or more
    task: str | None = field(default=None, metadata={"added": True})  # that the trials were of; None: the run's own
    # best: of the last rung; one_se: the lowest within one standard error of it
    choice: Literal["best", "one_se"] = field(default="best", metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Question:
    """A comparison that a study stated before it ran: is `method` equivalent to `reference` within `margin` points?

    Without a margin: is it better or worse? Methods are named as the rows of tables. Raises ValueError for a method
    compared with itself, and for a margin that is not a finite number above 0.
    """

    method: str
    reference: str
    margin: float | None = None  # points of the metric; of a loss: its own unit
    task: str | None = None  # None: the average over the table's tasks
    seeds: tuple[int, ...] | None = None  # least and most, of seeds=auto; None: the number of seeds is fixed

    def __post_init__(self) -> None:
        if self.method == self.reference:
            raise ValueError(f"a comparison needs two different methods, got {self.method} twice.")
        if self.margin is not None:
            check_margin(self.margin)


def check_margin(margin: object) -> float:
    """Return the margin in points. Raises ValueError unless it is a finite number above 0."""
    if isinstance(margin, int | float) and not isinstance(margin, bool) and math.isfinite(margin) and margin > 0:
        return float(margin)
    raise ValueError(f"a margin must be a number of points above 0, such as 1.0, got {margin!r}.")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Counts of scalars. Adapter, head and the rest are kept apart. Raises ValueError when the parts miss the sum."""

    adapter: int
    head: int
    other_trainable: int  # for example LayerNorms that the method trains
    trainable: int
    total: int  # of the whole model, adapter included
    # of the backbone's own weights, head excluded, how many training left different; None where it was not counted
    changed: int | None = field(default=None, metadata={"added": True})
    tensors: int | None = field(
        default=None, metadata={"added": True}
    )  # that were to be trained; None in older records
    tensors_moved: int | None = field(
        default=None, metadata={"added": True}
    )  # of these, how many differ from the start

    def __post_init__(self) -> None:
        if self.trainable != self.adapter + self.head + self.other_trainable:
            raise ValueError(
                f"Parameters.trainable must be adapter + head + other_trainable = "
                f"{self.adapter + self.head + self.other_trainable}, got {self.trainable}."
            )


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bytes on disk."""

    adapter_bytes: int | None = None  # what a user must keep besides the backbone


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peaks in bytes, reset between phases; device figures are None without a GPU."""

    train_peak_allocated_bytes: int | None = None
    train_peak_reserved_bytes: int | None = None
    eval_peak_reserved_bytes: int | None = None
    baseline_reserved_bytes: int | None = None
    host_rss_peak_bytes: int | None = None
    # without a GPU: weights, buffers, optimizer state and what one training step adds to them at most
    train_peak_tensor_bytes: int | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of wall clock, device-synchronised."""

    wall_s: float | None = None
    setup_s: float | None = None
    data_s: float | None = None
    train_s: float | None = None  # evaluation excluded
    eval_s: float | None = None
    save_s: float | None = None
    step_s_median: float | None = None
    step_s_p90: float | None = None
    warmup_steps_excluded: int | None = None
    check_s: float | None = field(default=None, metadata={"added": True})  # forgetting and merging
    # of all cores, in this process: what the run costs on a CPU, however many threads it had
    cpu_s: float | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Rates over the training and the evaluation phase."""

    train_tokens_per_s: float | None = None  # padding not counted
    train_samples_per_s: float | None = None
    eval_samples_per_s: float | None = None
    padded_fraction: float | None = None  # of all token positions


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sentences per optimiser step: effective = micro * grad_accum * devices."""

    effective: int
    micro: int  # as used, smaller than requested after running out of memory
    grad_accum: int
    micro_requested: int | None = field(default=None, metadata={"added": True})  # None in older records


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric on one split, on the metric's own scale; `value` is None with a reason where it is undefined.

    Raises ValueError for a value that is not finite, and for a value and a reason that contradict each other.
    """

    value: float | None
    n: int  # rows scored
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"Score.value must be finite, got {self.value}; give None and a reason instead.")
        if (self.value is None) != bool(self.reason):
            raise ValueError(f"Score needs a value or a reason, got value {self.value} and reason {self.reason!r}.")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much the answers to the evaluation rows vary, beside the labels (`lorta.records.spread`).

    Numbers have standard deviations, in the labels' unit, and no counts of classes; classes the other way round.
    """

    predictions_std: float | None  # None also where a prediction is NaN or infinite
    labels_std: float | None
    predicted_classes: int | None
    label_classes: int | None
    collapsed: bool  # the model answers, nearly, the same to all rows, and the labels differ


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Loss on text like that of the backbone's pre-training, in nats a predicted token, before and after training."""

    objective: Literal["causal", "masked"]
    text: str  # where it is from
    text_sha256: str  # of its tokens and targets: losses on different texts cannot be compared
    tokens: int  # predicted ones
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True, kw_only=True)
class Merging:
    """What merging the trained adapter into the backbone's weights does to the logits of fixed rows."""

    rows: int
    largest_difference: float | None  # largest |merged - unmerged| divided by the largest |unmerged|


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """A file that belongs to the record: per-step history or per-row predictions."""

    path: str  # relative to the run's folder
    sha256: str
    n: int  # lines


@dataclass(frozen=True, kw_only=True)
class Code:
    """Which version of this project ran; the git fields are None outside a checkout."""

    package_version: str
    git_sha: str | None
    git_dirty: bool | None
    diff_sha256: str | None  # of `git diff HEAD` and of files that git does not know yet, None for a clean tree
    # of the files that the run's numbers come from: its method's, its task's, and all that these import
    sources_sha256: str | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions that can move a number."""

    python: str
    packages: dict[str, str]
    lock_sha256: str | None
    env_vars: dict[str, str]
    allocator: str | None = field(default=None, metadata={"added": True})  # of memory; None: the C library's own


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine; the GPU fields are None without one."""

    cpu: str
    cores: int
    ram_bytes: int | None
    gpu_name: str | None = None
    gpu_count: int = 0
    gpu_memory_bytes: int | None = None
    hostname_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Where a run comes from that was not made here. Such runs share tables with none but their own kind.

    Runs are compared only where `protocol` is the same, and the runs of one task only where `task_protocol` is.
    """

    format: Literal["peft", "lm_eval"]
    name: str  # of the run, as its source calls it
    files: dict[str, str]  # name of each file -> SHA-256 of its bytes
    protocol: dict[str, str]  # what all runs of a table must share: lengths, steps, versions
    task_protocol: dict[str, str]  # what the runs of a task must share: number of examples, prompts
    noted: dict[str, Any]  # what else the source says and no other section holds


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where the run can be looked at besides its record."""

    mode: str
    wandb_id: str | None = None
    wandb_url: str | None = None
