"""The settings of a run, checked for type and range: one class for each group of `conf/config.yaml`. No torch.

A key with a default is left out of a run's identity at that default: keys that come later get one that means "off".
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

MOST = 2**31 - 1  # what a library's 32-bit integer holds
Positive = Annotated[int, Field(ge=1, le=MOST)]
MOST_EPOCHS, MOST_THREADS = 1_000_000, 1024
Quantization = Literal["8bit", "4bit"]
Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


def read_count(value: object) -> object:
    """Return 10000 for "10k", 1500000 for "1.5m", a whole float as an int; anything else as it is.

    Raises PydanticCustomError for a text that is no count.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmKM]?)", value)
    number = Decimal(match[1]) * {"": 1, "k": 10**3, "m": 10**6}[match[2].lower()] if match else Decimal("NaN")
    if not match or number != int(number):
        raise PydanticCustomError("count", "a count of weights is needed, such as 10k, 1.5m or 12000")
    return int(number)


def check_holdout(value: object) -> object:
    """Return a number of rows, or a fraction below 1, as it is. Raises PydanticCustomError for anything else."""
    rows = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is None or rows or (isinstance(value, float) and 0 < value < 1):
        return value
    raise PydanticCustomError(
        "holdout", "a number of training rows, 1 or more, or a fraction of a single file, such as 0.1, is needed"
    )


def check_steps(value: int) -> int:
    """Return -1 or a number of steps as it is. Raises PydanticCustomError for 0 and less, which libraries ignore."""
    if value == -1 or value >= 1:
        return value
    raise PydanticCustomError("steps", "a number of optimizer steps, 1 or more, or -1 for whole epochs, is needed")


def check_epochs(value: float) -> float:
    """Return a number of epochs as it is. Raises PydanticCustomError for one that no run could end."""
    if 0 < value <= MOST_EPOCHS:
        return value
    raise PydanticCustomError("epochs", "a number of epochs above 0, 1,000,000 at most, is needed")


def check_threads(value: int) -> int:
    """Return a number of threads as it is. Raises PydanticCustomError for one that no processor could run at once."""
    if 1 <= value <= MOST_THREADS:
        return value
    raise PydanticCustomError("threads", "a number of threads, 1 or more and 1,024 at most, is needed")


SEED_BOUND = 2**31
Seed = Annotated[int, Field(ge=0, lt=SEED_BOUND)]
Count = Annotated[int, BeforeValidator(read_count), Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown key, no silent conversion of "abc" or 1.5 into an int."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TrainerSettings(Settings):
    """`conf/trainer`: the names of transformers.TrainingArguments where it has them. Rates are per optimiser step."""

    learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None  # None: a method without weights
    head_learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    weight_decay: Rate
    head_weight_decay: Rate
    num_train_epochs: Annotated[float, AfterValidator(check_epochs)]
    max_steps: Annotated[int, Field(lt=2**31), AfterValidator(check_steps)]
    per_device_train_batch_size: Positive
    per_device_eval_batch_size: Positive
    gradient_accumulation_steps: Positive
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)]
    max_grad_norm: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    precision: Literal["fp32", "bf16"]
    group_by_length: bool
    shuffle_groups: bool = False  # what transformers does, and all runs of before did
    selection: Literal["last", "best"]
    cpu_threads: Annotated[int, AfterValidator(check_threads)]
    stop_after: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # share of the steps, under the whole schedule

    @model_validator(mode="after")
    def _groups_to_shuffle(self) -> "TrainerSettings":
        if self.shuffle_groups and not self.group_by_length:
            raise PydanticCustomError(
                "groups", "shuffle_groups=true needs groups to shuffle: set trainer.group_by_length=true"
            )
        return self


class DataSettings(Settings):
    """`data`: where rows come from and how many are used."""

    source: Literal["auto", "embedded", "local", "hub"]
    root: str | None
    max_train_samples: Positive | None
    max_eval_samples: Positive | None
    max_length: Annotated[int, Field(ge=4, le=MOST)]
    # so many training rows are scored instead of the evaluation split; a fraction: of a single file of one's own
    holdout: Annotated[int | float | None, BeforeValidator(check_holdout)] = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None  # of one's own files: one or two with text
    label: str | None = None  # of one's own files: the column of the label

    @property
    def scores_training_rows(self) -> bool:
        """Whether training rows are scored in place of the evaluation split, as in a trial of a learning rate."""
        return isinstance(self.holdout, int)


class ModelSettings(Settings):
    """`conf/model`: a folder or GGUF file (or `package:NAME/PLACE`), or a hub repository at a pinned revision."""

    name: str
    path: str | None
    hub_id: str | None
    revision: str | None
    data: Literal["embedded", "hub"]
    dtype: Literal["fp32", "bf16"]
    quantization: Quantization | None = None  # of the frozen weights, by bitsandbytes
    gradient_checkpointing: bool = False  # compute activations twice rather than keep them
    template: Literal["chat"] | None = None  # the prompts that it was tuned on; None: those that a task chooses


class RuntimeSettings(Settings):
    """`runtime`: what cannot change a number."""

    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=MOST)]
    runs_per_gpu: Literal["auto"] | Positive = "auto"
    runs_per_process: Literal["auto"] | Positive = "auto"
    timeout_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    memory_limit_mib: Positive | None
    allocator: Literal["auto", "system"]
    checkpoint_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    checkpoint_steps: Positive | None
    runs: str
    cache: str
    results: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    force: bool
    checks: bool  # measure forgetting and merging


class TrackingSettings(Settings):
    """`conf/tracking`: a mirror of the record elsewhere."""

    mode: Literal["none", "offline", "online", "trackio"]  # offline and online are those of wandb
    project: str


class TuneSettings(Settings):
    """`conf/tune`: which rate is searched for every cell, and on what."""

    search: Literal["lr"] | None
    factors: list[Annotated[float, Field(gt=0.0, allow_inf_nan=False)]]  # of the rate that the cell has
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]]
    holdout: Positive | None
    rungs: list[Annotated[float, Field(gt=0.0, le=1.0)]] = []  # shares of the steps, after each of which half is left
    extensions: Annotated[int, Field(ge=0, le=20)] = 0  # rates that may be added past an edge of the grid
    task: str | None = None  # whose rate all tasks of the sweep take; None: each task its own
    choice: Literal["best", "one_se"] = "best"  # one_se: the lowest rate within one standard error of the best

    def has_trials(self, task: str) -> bool:
        """Return whether the rate is searched on this task, with rows of it held out."""
        return self.search is not None and self.task in (None, task)

    @model_validator(mode="after")
    def _complete(self) -> "TuneSettings":
        if not self.search:
            return self
        if not (len(set(self.factors)) > 1 and self.holdout):
            raise PydanticCustomError("tune", "a search needs two factors or more, and rows to hold out")
        if len(set(self.seeds)) < 2:
            raise PydanticCustomError("tune", "a search needs two seeds or more: a rate may collapse on one of them")
        if not self.rungs or any(later <= earlier for earlier, later in pairwise(self.rungs)):
            raise PydanticCustomError(
                "tune", "a search needs rungs that rise, such as [0.25,0.5], or [1.0] for whole runs"
            )
        return self


class SeedSettings(Settings):
    """`conf/seeds`: whether seeds are listed by `seed`, or added until the study's questions are decided."""

    until: Literal["decided"] | None
    least: int | None
    most: int | None


class RunSettings(Settings):
    """One resolved configuration. `adapter` and `task` are checked by the classes they name."""

    adapter: dict[str, Any]
    model: ModelSettings
    task: dict[str, Any]
    trainer: TrainerSettings
    data: DataSettings
    runtime: RuntimeSettings
    tracking: TrackingSettings
    rank: Positive
    budget: Count | None = (
        None  # trained weights without the head; what the rank was solved for, no part of an identity
    )
    seed: Seed
    init_seed: Seed | None = None  # of head and adapter
    order_seed: Seed | None = None  # of the order of training rows
    dropout_seed: Seed | None = None  # of what is drawn in training
    seeds: SeedSettings | None = None  # how many; no part of an identity
    compare: Any = None  # what the study asks (lorta.planning.questions); no part of an identity
    tune: TuneSettings | None = None  # how `trainer`'s rate is searched; no part of an identity
    tuning: dict[str, Any] | None  # an experiment's table of searched rates; what it set is in `trainer`

    def seed_of(self, use: Literal["init", "order", "dropout"]) -> int:
        """Return the seed for a use: its own, or `seed` where none is set."""
        own: int | None = getattr(self, f"{use}_seed")
        return self.seed if own is None else own


def setting_problems(error: ValidationError) -> list[str]:
    """Return a sentence, with the dotted key, for every setting that pydantic refused."""
    problems: list[str] = []
    for item in error.errors(include_url=False):
        # the last parts of a union's location are names of its members, not keys
        keys = [str(part) for part in item["loc"] if str(part).replace("_", "").isalnum() and not _is_type_name(part)]
        message = str(item["msg"])
        value = "" if isinstance(item["input"], Mapping) else f"={item['input']!r}"  # a whole section says too much
        problems.append(f"{'.'.join(keys)}{value}: {message[0].lower()}{message[1:]}")
    return problems


def _is_type_name(part: object) -> bool:
    return part in ("int", "float", "str", "none", "literal", "bool")
