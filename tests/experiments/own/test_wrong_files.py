"""Wrong files of a user: each costs one sentence with file and line, exit status 2, and nothing is written."""

import gzip
import json
from pathlib import Path

import pytest

from lorta.cli.main import main

GOOD = "text,label\nold dog,a\nred ball,b\nbig hill,a\n"
NUMBERS = "text,label\nold dog,1\nred ball,2.5\nbig hill,3\n"
CLASSES, SCORES = "task=classification", "task=regression"


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(text: object = "old dog", label: object = "a", **more: object) -> dict[str, object]:
    return {"text": text, "label": label, **more}


OTHER = row("red ball", "b")
# name -> (words, {file: content}, the file and place that the sentence names, what else it says)
WRONG: dict[str, tuple[str, dict[str, object], str, str]] = {
    "labels of two types": (
        CLASSES,
        {"train.jsonl": lines(row(label=1), OTHER), "dev.csv": GOOD},
        "train.jsonl, line 2: column label is a text here",
        "a whole number in line 1",
    ),
    "a text that is a number": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row(5)), "dev.csv": GOOD},
        "train.jsonl, line 2: column text must be text, not a whole number",
        "",
    ),
    "an empty file": (CLASSES, {"train.csv": "", "dev.csv": GOOD}, "train.csv: no rows", ""),
    "a header alone": (CLASSES, {"train.csv": "text,label\n", "dev.csv": GOOD}, "train.csv: no rows", ""),
    "an empty list": (CLASSES, {"train.json": "[]", "dev.csv": GOOD}, "train.json: no rows", ""),
    "one class": (
        CLASSES,
        {"train.csv": "text,label\nold dog,a\nred ball,a\n", "dev.csv": GOOD},
        "train.csv: every label is 'a'",
        "two classes",
    ),
    "a class that only validation has": (
        CLASSES,
        {"train.csv": GOOD, "validation.csv": GOOD + "sea,c\n"},
        "validation.csv, line 5: label 'c' is none of the classes",
        "a, b",
    ),
    "a class that the cap leaves to validation": (
        f"{CLASSES} data.max_train_samples=2",
        {"train.csv": GOOD + "sea,c\nfog,c\n", "validation.csv": GOOD + "sea,c\n"},
        "validation.csv, line",
        "none of the classes of the training rows: a, b (data.max_train_samples=2: all rows of the files have more)",
    ),
    "an id twice": (
        CLASSES,
        {"train.csv": "id,text,label\n1,old dog,a\n2,red ball,b\n1,sea,a\n", "dev.csv": "id,text,label\n1,sea,a\n"},
        "train.csv, line 4: id '1' is also in line 2",
        "rename the column",
    ),
    "an id that is missing": (
        CLASSES,
        {"train.jsonl": lines(row(id=1), OTHER), "dev.csv": GOOD},
        "train.jsonl, line 2: column id must be a text or a whole number in every row, not null",
        "",
    ),
    "a list as text": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row(["old", "dog"])), "dev.csv": GOOD},
        "train.jsonl, line 2: column text must be text, not a list",
        "",
    ),
    "a list as label": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row(label=["a", "b"])), "dev.csv": GOOD},
        "train.jsonl, line 2: column label must be a class",
        "not a list",
    ),
    "a fraction as class": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row(label=0.5)), "dev.csv": GOOD},
        "train.jsonl, line 2: column label must be a class",
        "task=regression",
    ),
    "no label": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row(label=None)), "dev.csv": GOOD},
        "train.jsonl, line 2: column label must be a class",
        "not null",
    ),
    "an empty label": (
        CLASSES,
        {"train.csv": GOOD + "sea,\n", "dev.csv": GOOD},
        "train.csv, line 5: column label, the label, is empty",
        "",
    ),
    "a label with a space": (
        CLASSES,
        {"train.csv": GOOD + "sea, a\n", "dev.csv": GOOD},
        "train.csv, line 5: column label: the label ' a' has spaces",
        "",
    ),
    "an empty text": (
        CLASSES,
        {"train.csv": GOOD + " ,a\n", "dev.csv": GOOD},
        "train.csv, line 5: column text is empty",
        "",
    ),
    "semicolons": (
        CLASSES,
        {"train.csv": GOOD.replace(",", ";"), "dev.csv": GOOD},
        "train.csv, line 1: one column, 'text;label'",
        "semicolons",
    ),
    "tabs in a CSV": (
        CLASSES,
        {"train.csv": GOOD.replace(",", "\t"), "dev.csv": GOOD},
        "train.csv, line 1: one column",
        "name a file with tabs .tsv",
    ),
    "commas in a TSV": (CLASSES, {"train.tsv": GOOD, "dev.csv": GOOD}, "train.tsv, line 1: one column", "commas"),
    "a cell too many": (
        CLASSES,
        {"train.csv": GOOD + "old, red,b\n", "dev.csv": GOOD},
        "train.csv, line 5: 3 cells, and the first line has 2",
        "",
    ),
    "a quote that is not closed": (
        CLASSES,
        {"train.csv": GOOD + '"old dog,a\nsea,b\n', "dev.csv": GOOD},
        "train.csv, line 5: not readable as a table",
        "double each quote",
    ),
    "a column name twice": (
        CLASSES,
        {"train.csv": "text,text,label\na,b,c\n", "dev.csv": GOOD},
        "train.csv, line 1: two columns are called 'text'",
        "",
    ),
    "a column without a name": (
        CLASSES,
        {"train.csv": ",text,label\n0,b,c\n", "dev.csv": GOOD},
        "train.csv, line 1: column 1 has no name",
        "",
    ),
    "no column to recognise as label": (
        CLASSES,
        {"train.csv": "a,b,c\nx,y,z\n", "dev.csv": GOOD},
        "train.csv, line 1: the columns are a, b, c; which is the label?",
        "data.label=",
    ),
    "no column to recognise as text": (
        CLASSES,
        {"train.csv": "a,b,label\nx,y,z\n", "dev.csv": GOOD},
        "train.csv, line 1: the columns are a, b, label; which hold the text?",
        "data.columns=[a]",
    ),
    "a column that is not there": (
        f"{CLASSES} data.columns=[message]",
        {"train.csv": GOOD, "dev.csv": GOOD},
        "train.csv, line 1: the columns are text, label; there is no message",
        "data.columns",
    ),
    "three columns of text": (
        f"{CLASSES} data.columns=[text,b,c]",
        {"train.csv": "text,b,c,label\nw,x,y,z\n", "dev.csv": GOOD},
        "train.csv, line 1: data.columns=",
        "one or two",
    ),
    "a column that only one file has": (
        CLASSES,
        {"train.csv": GOOD, "dev.csv": "message,label\nold,a\n"},
        "dev.csv, line 1: the columns are message, label; there is no text",
        "",
    ),
    "not JSON": (
        CLASSES,
        {"train.jsonl": lines(row(), OTHER) + '{"text": \n', "dev.csv": GOOD},
        "train.jsonl, line 3: not JSON",
        "",
    ),
    "not JSON in a list": (
        CLASSES,
        {"train.json": '[{"text": "a",\n "label"}]', "dev.csv": GOOD},
        "train.json, line 2: not JSON",
        "",
    ),
    "a list of texts": (
        CLASSES,
        {"train.json": '["old dog"]', "dev.csv": GOOD},
        "train.json, row 1: an object with columns is needed, not a text",
        "",
    ),
    "not Parquet": (
        CLASSES,
        {"train.parquet": "PAR1", "dev.csv": GOOD},
        "train.parquet: cannot be read as Parquet",
        "",
    ),
    "not gzip": (CLASSES, {"train.csv.gz": GOOD, "dev.csv": GOOD}, "train.csv.gz: cannot be read", ""),
    "gzip without its ending": (
        CLASSES,
        {"train.csv": gzip.compress(GOOD.encode()), "dev.csv": GOOD},
        "train.csv: it is compressed",
        "train.csv.gz",
    ),
    "another encoding": (
        CLASSES,
        {"train.csv": (GOOD + "Bär,a\n").encode("latin-1"), "dev.csv": GOOD},
        f"train.csv, line {GOOD.count(chr(10)) + 1}: not UTF-8",
        "save it as UTF-8",
    ),
    "half a character": (
        CLASSES,
        {"train.jsonl": lines(OTHER, row("old \ud83d")), "dev.csv": GOOD},
        "train.jsonl, line 2: column text holds \\ud83d",
        "",
    ),
    "a line without an end": (
        CLASSES,
        {"train.jsonl": lines(OTHER) + "x" * 10_000_001, "dev.csv": GOOD},
        "train.jsonl, line 2: longer than 10,000,000 characters",
        "",
    ),
    "texts as classes": (
        CLASSES,
        {"train.csv": "text,label\n" + "".join(f"old,l{n}\n" for n in range(30)), "dev.csv": GOOD},
        "train.csv: label has 30 different values in 30 rows",
        "data.label",
    ),
    "no number as a class": (
        CLASSES,
        {"train.jsonl": lines(OTHER) + '{"text": "old", "label": NaN}\n', "dev.csv": GOOD},
        "column label must be a class, a text or a whole number, not NaN",
        "",
    ),
    "classes as numbers": (
        SCORES,
        {"train.csv": GOOD, "dev.csv": GOOD},
        "train.csv, line 2: column label must be a number such as 2.5, not 'a'",
        "task=classification (2 more rows have problems)",
    ),
    "a number with a comma": (
        SCORES,
        {"train.csv": NUMBERS + 'sea,"2,5"\n', "dev.csv": NUMBERS},
        "train.csv, line 5: column label must be a number such as 2.5, not '2,5'",
        "",
    ),
    "not a number": (
        SCORES,
        {"train.csv": NUMBERS + "sea,nan\n", "dev.csv": NUMBERS},
        "train.csv, line 5: column label must be a number",
        "'nan'",
    ),
    "equal numbers": (
        SCORES,
        {"train.csv": NUMBERS, "dev.csv": "text,label\nold,2\nred,2\n"},
        "dev.csv: every label is 2",
        "correlation",
    ),
    "no file": (CLASSES, {"notes.md": "x"}, "data.root=", "no file that ends in .csv"),
    "no file to train on": (CLASSES, {"dev.csv": GOOD, "other.csv": GOOD}, "data.root=", "Name it train"),
    "no file to score": (CLASSES, {"train.csv": GOOD}, "data.root=", "data.holdout=0.1"),
    "two files of a split": (
        CLASSES,
        {"train.csv": GOOD, "train.tsv": GOOD, "dev.csv": GOOD},
        "data.root=",
        "train.csv and train.tsv are both 'train'",
    ),
    "a fraction of two files": (
        f"{CLASSES} data.holdout=0.5",
        {"train.csv": GOOD, "dev.csv": GOOD},
        "data.holdout=0.5",
        "for a single file",
    ),
    "a fraction of nothing": (f"{CLASSES} data.holdout=0.1", {"all.csv": GOOD}, "data.holdout=0.1", "3 rows"),
    "no fraction": (f"{CLASSES} data.holdout=1.5", {"all.csv": GOOD}, "data.holdout=1.5", "such as 0.1"),
    "an unknown metric": (
        f"{CLASSES} task.metrics=[accuracy,auc]",
        {"train.csv": GOOD, "dev.csv": GOOD},
        "task.metrics: there is no metric auc of classes",
        "FILE.py:FUNCTION",
    ),
    "no file of a metric": (
        f"{CLASSES} task.metrics=[accuracy,'no.py:cost']",
        {"train.csv": GOOD, "dev.csv": GOOD},
        "task.metrics: no file no.py",
        "",
    ),
}


def write(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else str(content).encode("utf-8"))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_costs_one_sentence_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    words, files, place, hint = WRONG[name]
    write(tmp_path / "own", files)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", *words.split(), "model=tiny", "data.root=own"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1 problem, nothing was run:" and len(said) == 2
    assert place in said[1] and hint in said[1]
    assert sorted(tmp_path.rglob("*")) == before
