"""Where a question task's rows come from: embedded, JSON lines below `data.root`, or one Parquet file of the hub."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.files import read_lines
from experiments.questions.formats import Checked, Format, Question
from experiments.rows import capped, choose_source, identities, local_file, plan_local
from lorta.api.task import DataPlan, Source
from lorta.config.instantiate import build
from lorta.config.settings import DataSettings
from lorta.embedded.questions import QUESTION_KINDS, QUESTIONS_REVISION, question_fingerprint, question_rows
from lorta.models.hub import download, require_commit, require_file
from lorta.models.hub_cache import HubFile
from lorta.records.row_counts import RowCount


@dataclass(frozen=True)
class RowSource:
    """One split of one data set, a node of a task's YAML: the same rows under three names, and their format.

    `folder` and `split` name the local file, `embedded` the embedded kind of rows (null: there is none), `hub_file` the
    Parquet file in the repository `hub_id` at `revision` (null: no hub repository has these rows in this form).
    """

    format: Mapping[str, Any]
    folder: str
    split: str
    embedded: str | None
    hub_id: str | None
    hub_file: str | None
    revision: str | None

    def built_format(self) -> Format:
        """Return the format object."""
        return build(self.format)

    def fingerprint(self, source: Source, data: DataSettings, task: str) -> tuple[str, RowCount | None]:
        """Return what fixes the rows, and their count where each line of a local file was checked.

        Raises ValueError with the problems.
        """
        if source == "embedded":
            if self.embedded is None:
                known = ", ".join(QUESTION_KINDS)
                raise ValueError(f"task={task} has no embedded data (there are {known}): set data.root=FOLDER")
            return question_fingerprint(self.embedded, self.split), None
        if source == "local":
            try:
                plan = plan_local(self.folder, data.root or "", {"rows": self.split}, Checked(self.built_format()))
            except ValueError as error:
                raise ValueError(str(error).replace(f"task={self.folder}:", f"task={task}:")) from error
            return plan.fingerprints["rows"], plan.counts["rows"]
        return self._hub_fingerprint(task), None

    def rows(self, source: Source, data: DataSettings) -> list[Mapping[str, Any]]:
        """Return the rows in the source's order."""
        if source == "embedded":
            assert self.embedded is not None
            return list(question_rows(self.embedded, self.split))
        if source == "local":
            file = local_file(Path(data.root or "").expanduser(), self.folder, self.split)
            return [row for _, row in read_lines(file)]
        from pyarrow import parquet

        return parquet.read_table(download(self._hub_file())).to_pylist()

    def questions(
        self, source: Source, data: DataSettings, task: str, use: str, cluster: str | None = None
    ) -> tuple[list[tuple[Any, Question]], RowCount]:
        """Return (idx, question) of the rows within the cap of the split that `use` names, and their count.

        `cluster` is a column; questions with the same value in it belong together, one without any to none.

        Raises ValueError naming the row of another form.
        """
        form, collected = self.built_format(), []
        rows = self.rows(source, data)
        numbered = list(enumerate(zip(identities(rows), rows, strict=True)))
        most = {"train": data.max_train_samples, "evaluation": data.max_eval_samples}[use]
        kept, count = capped(numbered, RowCount(len(rows)), most, use, task)
        for number, (idx, row) in kept:
            try:
                shared = None if cluster is None else row.get(cluster)
                collected.append((idx, replace(form.question(row), cluster=None if shared is None else str(shared))))
            except ValueError as error:
                raise ValueError(f"task={task}, {self.split} row {number}: {error}") from error
        return collected, count

    def _hub_file(self) -> HubFile:
        assert self.hub_id and self.hub_file and self.revision, "a plan has refused it"
        return HubFile(self.hub_id, self.hub_file, self.revision, "dataset")

    def _hub_fingerprint(self, task: str) -> str:
        if self.hub_id is None or self.hub_file is None or self.revision is None:
            raise ValueError(f"task={task}: no hub repository has these rows in this form: set data.root=FOLDER")
        what, file = f"task={task} ({self.hub_id})", self._hub_file()
        require_commit(what, "revision", file.hub_id, file.revision, "dataset")
        require_file(
            what, f"hf download {file.hub_id} {file.name} --repo-type dataset --revision {file.revision}", file
        )
        return f"{self.hub_id}@{self.revision}/{self.hub_file}"


def plan_questions(task: str, uses: Mapping[str, RowSource], data: DataSettings, model_default: str) -> DataPlan:
    """Return the plan of a task. Raises ValueError with the problems of all its splits, one a line."""
    source = choose_source(data, model_default)
    problems: list[str] = []
    prints: dict[str, str] = {}
    counts: dict[str, RowCount] = {}
    for use, rows in uses.items():
        try:
            prints[use], count = rows.fingerprint(source, data, task)
            counts |= {} if count is None else {use: count}
        except ValueError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise ValueError("\n".join(problems))
    revisions = {"embedded": QUESTIONS_REVISION, "local": "sha256", "hub": uses["evaluation"].revision or ""}
    return DataPlan(source, revisions[source], prints, counts)
