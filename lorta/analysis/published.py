"""The ledger of published numbers: results/published/<paper>.yaml, read and checked.

A number that is not known is absent, never guessed. What a paper says once for a table (model, split, seeds, which
epoch) stands at the table; a row may say otherwise. Keys and their meaning: the classes below.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lorta.config.places import RESULTS
from lorta.config.settings import setting_problems

FOLDER = RESULTS / "published"
MAGNITUDES = {"k": 10**3, "M": 10**6, "B": 10**9}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
ALL = "all"  # instead of a column: the whole row

Confidence = Literal[
    "verified",  # read in the paper or in the authors' files
    "secondary",  # as another source quotes it
    "digitised",  # read off a figure
    "derived",  # follows from a formula
    "supplied",  # added by a user of this project, from the source named beside it
]
Part = Literal["adapter", "head", "other"]  # of the trained weights, as in a record
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Entry(BaseModel):
    """Base of all entries: frozen, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(Entry):
    """A published number and what the paper prints after its ± sign."""

    value: Finite
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


def _value(node: Any) -> Any:
    """Take 95.1 and [95.1, 0.2] as they stand in YAML."""
    if isinstance(node, list) and len(node) == 2:
        return {"value": node[0], "spread": node[1]}
    return {"value": node} if isinstance(node, int | float) and not isinstance(node, bool) else node


class Column(Entry):
    """What one column of a table measures; `task` and `metric` are this project's names, None where it has none."""

    task: str | None
    metric: str | None
    split: str | None = None  # where it is not the table's
    unit: str = "points"  # points: hundredths of the metric
    decimals: Annotated[int, Field(ge=0, le=6)] = 1  # as printed
    margin: Annotated[float, Field(gt=0)] = 1.0  # differences below it, in the unit, count as reproduced

    @model_validator(mode="after")
    def _margin_of_other_units(self) -> "Column":
        if self.unit != "points" and "margin" not in self.model_fields_set:
            raise ValueError(f"a column in {self.unit} needs a margin: which difference is small enough?")
        return self


class Circumstances(Entry):
    """How numbers came about. A key that a row leaves out is as the table says; null is not known."""

    model: str | None = None  # this project's name, conf/model
    seeds: Annotated[int, Field(ge=1)] | None = None
    statistic: Literal["mean", "median", "unknown"] | None = None  # over seeds
    spread: Literal["std", "unknown"] | None = None  # what stands after ±
    selection: Literal["last", "best", "unknown"] | None = None  # which epoch is scored
    counted: tuple[Part, ...] | None = None  # parts of which `parameters` is the sum
    source: str | None = None
    confidence: Confidence | None = None


class Row(Circumstances):
    """One method of a table. `adapter` is this project's name, conf/adapter; None where it has none."""

    method: str
    adapter: str | None = None
    rank: Annotated[int, Field(ge=1)] | None = None
    parameters: int | str | None = None  # exact, or as printed: 0.3M
    scores: dict[str, Annotated[Value, BeforeValidator(_value)]] = {}
    average: Finite | None = None
    not_comparable: dict[str, str] = {}  # column or `all` -> why no run of ours can stand beside it
    note: str | None = None

    @model_validator(mode="after")
    def _readable_parameters(self) -> "Row":
        parameter_range(self.parameters)
        return self


class Table(Circumstances):
    """One table or figure of a paper."""

    title: str
    label: str | None = None  # its number in the paper
    split: str | None = None
    columns: dict[str, Column]
    include: tuple[str, ...] = ()  # PAPER.TABLE whose rows this table quotes
    rows: tuple[Row, ...] = ()
    note: str | None = None
    missing: str | None = None  # why scores are absent


class Paper(Entry):
    """One file of the ledger."""

    paper: str
    title: str
    citation: str
    tables: dict[str, Table]


@dataclass(frozen=True)
class Line:
    """A row with the circumstances of its table filled in, and the PAPER.TABLE it is from."""

    row: Row
    table: Table
    origin: str


def load(paper: str, folder: Path = FOLDER) -> Paper:
    """Read results/published/PAPER.yaml. Raises ValueError, one problem a line, with file and key."""
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if paper not in known:
        near = difflib.get_close_matches(paper, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}."
        raise ValueError(f"paper={paper}: {folder} has no such paper; {hint}")
    file = folder / f"{paper}.yaml"
    try:
        ledger = Paper.model_validate(yaml.load(file.read_text(encoding="utf-8"), LOADER))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    except ValidationError as error:
        raise ValueError("\n".join(f"{file}: {problem}" for problem in setting_problems(error))) from error
    problems = [f"{file}: {problem}" for name, table in ledger.tables.items() for problem in _problems(name, table)]
    if ledger.paper != paper:
        problems.append(f"{file}: paper={ledger.paper!r} must be the name of the file.")
    if problems:
        raise ValueError("\n".join(problems))
    return ledger


def _problems(name: str, table: Table) -> list[str]:
    problems: list[str] = []
    for number, row in enumerate(table.rows):
        where = f"tables.{name}.rows.{number} ({row.method})"
        for key, names in (("scores", set(row.scores)), ("not_comparable", set(row.not_comparable) - {ALL})):
            if unknown := sorted(names - set(table.columns)):
                problems.append(f"{where}.{key}: {', '.join(unknown)} is no column; known: {', '.join(table.columns)}.")
        filled = filled_in(row, table)
        absent = [key for key in ("source", "confidence") if getattr(filled, key) is None]
        if row.scores and absent:
            problems.append(f"{where}: a row with scores needs {' and '.join(absent)}, here or at the table.")
    if not table.rows and not table.include:
        problems.append(f"tables.{name}: a table needs rows or include.")
    return problems


def filled_in(row: Row, table: Table) -> Row:
    """Return the row with what its table says once."""
    common = {name: getattr(table, name) for name in Circumstances.model_fields if name not in row.model_fields_set}
    return row.model_copy(update=common)


def lines(paper: Paper, name: str, folder: Path = FOLDER) -> list[Line]:
    """Return all rows of a table, quoted ones first. Raises ValueError for an unknown table or one quoted in vain."""
    if name not in paper.tables:
        near = difflib.get_close_matches(name, paper.tables, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(paper.tables)}."
        raise ValueError(f"table={name}: {paper.paper} has no such table; {hint}")
    table = paper.tables[name]
    collected: list[Line] = []
    for quoted in table.include:
        other, _, part = quoted.partition(".")
        of_other = lines(load(other, folder), part, folder)
        foreign = sorted({column for line in of_other for column in line.row.scores} - set(table.columns))
        if foreign:
            raise ValueError(f"{paper.paper}: tables.{name}.include: {quoted} has other columns: {', '.join(foreign)}.")
        collected += of_other
    own = f"{paper.paper}.{name}"
    return [*collected, *(Line(filled_in(row, table), table, own) for row in table.rows)]


def parameter_range(parameters: int | str | None) -> tuple[float, float] | None:
    """Return the counts that would be printed so: 0.3M is 250,000 to 350,000. Raises ValueError for other words."""
    if parameters is None or isinstance(parameters, int):
        return None if parameters is None else (parameters, parameters)
    number, unit = parameters[:-1], MAGNITUDES.get(parameters[-1:])
    try:
        value = float(number)
    except ValueError:
        value = None
    if value is None or unit is None:
        raise ValueError(f"parameters must be a whole number, or a number with k, M or B, got {parameters!r}.")
    half = 0.5 * 10.0 ** -len(number.partition(".")[2]) * unit
    return value * unit - half, value * unit + half


def counted_parameters(parts: Mapping[Part, int], counted: tuple[Part, ...]) -> int:
    """Return the sum of the parts that a paper counts."""
    return sum(parts[part] for part in counted)
