"""`task=classification` and `task=regression`: a user's own texts, without code. docs/own_data.md."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from experiments.metrics import modules_of
from experiments.own.metrics import check_metrics, metrics_sha256, score_rows, try_metrics
from experiments.own.places import own_files
from experiments.own.table import (
    Kind,
    Table,
    class_problems,
    in_order,
    listed,
    many_classes,
    number_problems,
    read_table,
)
from experiments.rows import cap, capped
from lorta.api.task import DataPlan, Task
from lorta.config.settings import DataSettings
from lorta.models.backbone import Backbone, load_classifier
from lorta.models.locate import ModelFiles
from lorta.records.row_counts import HOLDOUT, RowCount
from lorta.records.sections import Score, Spread
from lorta.records.spread import spread_of_classes, spread_of_numbers
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.tokenised import Tokenised
    from lorta.training.trainer import TrainingOutcome


@dataclass(frozen=True)
class OwnTask(Task):
    """Classes or numbers of a user's own texts, in one or two columns of each row.

    `labels` are the classes in the order of the classifier's outputs; without them, those of the training rows, sorted.
    `evaluation_split` names the scored file, None the first of validation, dev and test. `metrics` are known names, or
    FILE.py:FUNCTION with a function of (predictions, references), lists of class names or of numbers. Raises ValueError
    for metrics that are not there.
    """

    name: str
    protocol: int
    kind: Kind
    metrics: Sequence[str]
    primary: str
    test_is_validation: bool
    evaluation_split: str | None = None
    labels: Sequence[str] = ()
    peft_task_type: str = "SEQ_CLS"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("classes", "numbers"):
            raise ValueError(f"task.kind={self.kind}: task={self.name} predicts classes or numbers, name one of them")
        check_metrics(self.name, self.kind, self.metrics, self.primary)

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and of the known metrics; files of one's own say what they import."""
        return ("experiments.classification", "experiments.tokenised", *modules_of(self.metrics))

    @property
    def supports_holdout(self) -> bool:
        """Rows of both splits are alike."""
        return True

    @property
    def splits_a_file(self) -> bool:
        """A single file is enough: a fraction of it is scored."""
        return True

    def with_labels(self, labels: Sequence[str]) -> "OwnTask":
        """Return the task with the classes that its data have."""
        return replace(self, labels=tuple(labels))

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Read and check every row. Raises ValueError, one problem a line."""
        if data.source not in ("auto", "local") or data.root is None:
            raise ValueError(
                f"task={self.name} needs files of yours: data.root=FOLDER with train.csv and validation.csv "
                "(or .tsv, .jsonl, .json, .parquet)"
            )
        train, scored, unread = self._tables(data)
        classes = self._classes(train)
        used = self._capped(train, data.max_train_samples), self._capped(scored, data.max_eval_samples)
        problems = many_classes(train, classes) or class_problems(train, scored, classes) if classes else []
        if problems:
            raise ValueError("\n".join(problems))
        if problems := class_problems(*used, in_order(used[0].labels)) if classes else number_problems(*used):
            raise ValueError("\n".join(f"{problem}{self._sampled(data)}" for problem in problems))
        try_metrics(self.metrics, used[1].labels)
        return DataPlan(
            "local",
            "sha256",
            self._prints(train.file, scored.file, data.holdout),
            _counts(train, scored),
            labels=classes,
            notes=tuple(self._notes(train, scored, classes, used[1], unread)),
        )

    def _tables(self, data: DataSettings) -> tuple[Table, Table, tuple[Path, ...]]:
        """Return the training rows, the scored rows, and the files that are not read."""
        share = data.holdout if isinstance(data.holdout, float) else None
        files = own_files(data.root or "", data.holdout, self.evaluation_split)
        train = read_table(files.train, self.kind, data.columns, data.label)
        if files.evaluation is not None:
            columns = train.columns
            scored = read_table(files.evaluation, self.kind, columns.texts, columns.label)
            return train, scored, files.unread
        held = _held_out(train.labels if self.kind == "classes" else [0] * len(train.rows), share or 0.0, self.name)
        if not 0 < len(held) < len(train.rows):
            raise ValueError(f"data.holdout={share}: of {len(train.rows)} rows of {train.file} it takes {len(held)}")
        kept = [number for number in range(len(train.rows)) if number not in held]
        return train.at(kept), train.at(sorted(held)), files.unread

    def _sampled(self, data: DataSettings) -> str:
        """Return the settings that left out rows, in brackets behind what is wrong with the others."""
        caps = {"data.max_train_samples": data.max_train_samples, "data.max_eval_samples": data.max_eval_samples}
        given = [f"{name}={value}" for name, value in caps.items() if value is not None]
        return f" ({' and '.join(given)}: all rows of the files have more)" if given else ""

    def _capped(self, table: Table, most: int | None) -> Table:
        return table.at(cap(range(len(table.rows)), most, self.name))

    def _classes(self, train: Table) -> tuple[str, ...]:
        if self.kind == "numbers":
            return ()
        return tuple(map(str, self.labels)) or in_order(train.labels)

    def _prints(self, train: Path, scored: Path, share: float | None) -> dict[str, str]:
        """Return the hashes of the rows, and of the metrics' files where there are some."""
        prints = {use: _sha256(file) for use, file in (("train", train), ("evaluation", scored))}
        if train == scored:
            prints = {"train": f"{prints['train']} without {share}", "evaluation": f"{prints['train']} {share} of it"}
        own = metrics_sha256(self.metrics)
        return prints | ({"metrics": own} if own else {})

    def _notes(
        self, train: Table, scored: Table, classes: Sequence[str], used: Table, unread: Sequence[Path]
    ) -> list[str]:
        """Return what was recognised, and what looks odd but forbids nothing."""
        texts = " and ".join(train.columns.texts)
        kinds = f", {len(classes)} classes: {listed(classes)}" if classes else ""
        notes = [f"task={self.name}: text from {texts}, label from {train.columns.label}{kinds}"]
        if absent := [label for label in classes if label not in set(used.labels)]:
            notes.append(f"task={self.name}: no scored row has the {train.columns.label} {listed(absent)}")
        trained = {_texts(row) for row in train.rows}
        if same := sum(_texts(row) in trained for row in scored.rows):
            notes.append(f"task={self.name}: {same:,} of {len(scored.rows):,} scored rows are also trained on")
        if unread:
            notes.append(f"task={self.name}: not read: {', '.join(file.name for file in unread)}")
        return notes

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return the model with a fresh classification head."""
        return load_classifier(files, len(self.labels) or 1, dtype)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache_folder: Path
    ) -> DataSplits:
        """Return both splits, tokenised, from the cache where they are there."""
        from experiments.tokenised import cached, encode_texts

        tables = cache(lambda: self._tables(data)[:2])
        number_of = {label: number for number, label in enumerate(self.labels)}

        def split(place: int, use: str, most: int | None) -> "Tokenised":
            def make() -> tuple[dict[str, list[Any]], RowCount]:
                table, count = tables()[place], _counts(*tables())[use]
                rows = [{**row, "label": number_of.get(row["label"], row["label"])} for row in table.rows]
                kept, count = capped(rows, count, most, use, self.name)
                columns = [f"text{number}" for number in range(len(table.columns.texts))]
                return encode_texts(kept, columns, tokenizer, data.max_length, self.kind == "numbers", count)

            return cached(self, plan, data, use, tokenizer, make, cache_folder)

        train = split(0, "train", data.max_train_samples)
        evaluation = split(1, "evaluation", data.max_eval_samples)
        return DataSplits(train.rows, evaluation.rows, {"train": train.count, "evaluation": evaluation.count})

    def start_head(self, backbone: Backbone, data: DataSplits) -> str | None:
        """Let the head of numbers answer with the mean of the training labels at first."""
        if self.kind == "classes":
            return None
        from experiments.classification import start_at

        return start_at(backbone, mean(data.train["labels"][:]))

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with transformers.Trainer; the epoch's score is the primary metric on the scored rows."""
        from experiments.classification import train_classifier

        rows = context.data.train.remove_columns(["idx"])
        return train_classifier(model, context, rows, lambda: self.epoch_score(model, context))

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return idx, reference, prediction (a class's name or a number) and logits of each scored row, in order."""
        from experiments.classification import logits

        rows, settings = context.data.evaluation, context.settings
        size, precision = settings.per_device_eval_batch_size, settings.precision
        outputs = logits(model, context.backbone.tokenizer, rows, size, precision)
        return [
            {"idx": idx, "reference": self._said(reference), "prediction": self._said(_answer(row)), "logits": row}
            for idx, reference, row in zip(rows["idx"][:], rows["labels"][:], outputs, strict=True)
        ]

    def _said(self, value: Any) -> Any:
        return self.labels[value] if self.labels else value

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return this task's metrics. Pure: works on a predictions file."""
        columns = ([row[name] for row in predictions] for name in ("prediction", "reference"))
        return score_rows(self.kind, self.metrics, *columns)

    def spread(self, predictions: Sequence[Mapping[str, Any]]) -> Spread:
        """Return the spread of predicted and labelled numbers, or the counts of classes."""
        of = spread_of_numbers if self.kind == "numbers" else spread_of_classes
        return of(*([row[name] for row in predictions] for name in ("prediction", "reference")))


def _answer(outputs: Sequence[float]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs.index(max(outputs))


def _texts(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row["text0"], row.get("text1")


def _held_out(classes: Sequence[Any], share: float, name: str) -> set[int]:
    """Return which rows of a single file are scored: the same share of each class, as far as whole rows allow.

    They are drawn once for a task's name, whatever the run's seed.
    """
    order = list(range(len(classes)))
    random.Random(f"lorta hold-out {name}").shuffle(order)
    sizes, seen = Counter(classes), Counter[Any]()
    place: dict[int, float] = {}  # of a row among the shuffled ones of its class, 0 to 1
    for row in order:
        place[row] = (seen[classes[row]] + 0.5) / sizes[classes[row]]
        seen[classes[row]] += 1
    return set(sorted(order, key=place.__getitem__)[: round(len(classes) * share)])


def _counts(train: Table, scored: Table) -> dict[str, RowCount]:
    if train.file != scored.file:
        return {"train": RowCount(len(train.rows)), "evaluation": RowCount(len(scored.rows))}
    read = RowCount(len(train.rows) + len(scored.rows))
    return {"train": read.without(HOLDOUT, len(scored.rows)), "evaluation": RowCount(len(scored.rows))}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
