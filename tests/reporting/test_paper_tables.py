import argparse
import csv
import io
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lorta.analysis.published import load
from lorta.analysis.verdicts import Evidence
from lorta.cli.table import declare, run
from lorta.records.store import export
from lorta.reporting.paper_tables import Judged, judge_table, text_table, to_csv, to_html, to_markdown, write_paper
from tests.analysis.test_verdicts import runs
from tests.example_records import finished, with_section

ROOT = Path(__file__).parents[2]
PAPER = """
paper: own
title: A & B
citation: Us, 2026
tables:
  one:
    title: GLUE, RoBERTa-base
    label: Table 9
    model: roberta_base
    split: validation
    seeds: 5
    statistic: mean
    spread: std
    selection: last
    counted: [adapter]
    source: our paper, Table 9
    confidence: verified
    missing: LoRTA's row was lost
    columns:
      rte: {task: glue/rte, metric: accuracy}
      cola: {task: glue/cola, metric: matthews_correlation}
    rows:
      - {method: LoRA, adapter: lora, rank: 4, parameters: 1000, scores: {rte: [80.0, 0.2], cola: 60.0}, average: 70.0}
      - {method: "old <way>", parameters: 1M, scores: {rte: 70.0}, note: a note with 5 %}
      - {method: LoRTA, adapter: lorta, rank: 4}
"""


@pytest.fixture
def judged(tmp_path) -> Judged:
    (tmp_path / "own.yaml").write_text(PAPER)
    return judge_table(load("own", tmp_path), "one", Evidence.of(runs(80.1, 79.9, 80.2, 80.2), {}), tmp_path)


def test_published_measured_difference_and_verdict_stand_below_each_other(judged):
    body = text_table(judged).body
    assert [row[2] for row in body] == ["published", "measured", "difference", "verdict", *["published", "verdict"] * 2]
    assert [row[3] for row in body[:4]] == [
        "80.0 ± 0.2",
        "80.1 [79.9, 80.3]",
        body[2][3],
        "reproduced",
    ]
    assert re.fullmatch(r"[+-]0\.\d \[-0\.\d, \+0\.\d\]", body[2][3])
    assert [row[4] for row in body[:4]] == ["60.0", "", "", "not run"]
    assert [row[5] for row in body[:4]] == ["70.0", "", "", ""]


def test_markdown_says_what_is_missing_and_how_to_add_it(judged):
    text = to_markdown(judged)
    assert (
        "Missing scores: LoRTA's row was lost; to add them, follow the first lines of results/published/own.yaml"
        in text
    )
    assert "Source: our paper, Table 9 (verified)." in text
    assert "- [1] this project has no such method" in text
    rows = [row.replace("\\|", "") for row in text.splitlines() if row.startswith("|")]
    assert {row.count("|") for row in rows} == {7}


def test_csv_has_a_line_a_cell_with_all_that_was_compared(judged):
    found = list(csv.DictReader(io.StringIO(to_csv([judged]))))
    assert len(found) == 6
    first = found[0]
    assert (first["published"], first["published_spread"], first["seeds"], first["parameters"]) == (
        "80.0",
        "0.2",
        "4",
        "1000",
    )
    assert float(first["measured"]) == pytest.approx(80.1)
    assert float(first["difference_low95"]) < float(first["difference"]) < float(first["difference_high95"])
    assert (first["verdict"], len(first["runs"].split())) == ("reproduced", 4)
    assert (found[1]["verdict"], found[1]["measured"], found[3]["reason"]) == (
        "not run",
        "",
        "this project has no such method",
    )


def test_a_measured_interval_ends_where_the_metric_does(tmp_path):
    (tmp_path / "own.yaml").write_text(PAPER)
    judged = judge_table(load("own", tmp_path), "one", Evidence.of(runs(100.0, 99.0, 80.0), {}), tmp_path)
    assert text_table(judged).body[1][3].endswith(", 100.0]")
    assert next(csv.DictReader(io.StringIO(to_csv([judged]))))["high95"] == "100.0"


class Tags(HTMLParser):
    """Counts cells a row and complains about what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[int] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_well_formed_and_escaped(judged, tmp_path):
    write_paper([judged], tmp_path, "own")
    text = (tmp_path / "reports" / "own.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert set(tags.cells) == {6}
    assert "old &lt;way&gt;" in text
    assert "A &amp; B" in text
    assert to_html(judged) in text


def test_latex_has_the_rows_of_the_table_and_balanced_braces(judged, tmp_path):
    write_paper([judged], tmp_path, "own")
    text = (tmp_path / "reports" / "own.tex").read_text()
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count(" & ") for line in body} == {5}
    assert text.count("{") == text.count("}")
    assert not set("±–") & set(text)  # noqa: RUF001
    assert r"old \textless{}way\textgreater{}" in text
    assert r"a note with 5 \%" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: the LaTeX is checked by structure only")
def test_latex_compiles(judged, tmp_path):
    write_paper([judged], tmp_path, "own")
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{own}\end{document}"
    (tmp_path / "reports" / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    assert subprocess.run(command, cwd=tmp_path / "reports", capture_output=True, check=False).returncode == 0


def test_every_table_of_every_committed_paper_is_rendered(tmp_path):
    records = [*runs(80.0, 81.0), with_section(finished("vera", rank=1024), "model", name="roberta_base")]
    for file in sorted((ROOT / "results" / "published").glob("*.yaml")):
        paper = load(file.stem)
        text = write_paper(
            [judge_table(paper, name, Evidence.of(records, {})) for name in paper.tables], tmp_path, paper.paper
        )
        assert all(f"{name.replace('_', chr(92) + '_')}: " in text for name in paper.tables)


def command(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    start = {"script": [str(ROOT / "scripts" / "make_tables.py")], "lorta": ["-m", "lorta", "table"]}[program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *start, *arguments], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


@pytest.mark.parametrize("program", ["script", "lorta"])
def test_one_command_line_has_two_names(tmp_path, program):
    export(runs(90.0, 91.0, 92.0), tmp_path / "results" / "records" / "x.jsonl")
    done = command(program, "paper=lorta", "table=glue_base", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.strip()
        == (tmp_path / "results" / "local" / "reports" / "paper_lorta.glue_base.md").read_text().strip()
    )
    assert "not run" in done.stdout


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["paper=lrta"], "did you mean lorta"),
        (["paper=lorta", "table=glue_bse"], "did you mean glue_base"),
        (
            ["tabel=glue_base"],
            "tabel=glue_base: give paper=NAME and table=NAME, once each; did you mean table=glue_base",
        ),
        (["table=glue_base"], "of which paper? add paper=NAME"),
        (["paper=lorta", "paper=vera"], "once each"),
        (["--records", "nowhere.jsonl"], "there is no nowhere.jsonl"),
        (["paper=lorta", "--runs", "nowhere"], "there is no nowhere"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_writes_nothing(tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    declare(parser)
    with pytest.raises(ValueError, match=re.escape(problem)):
        run(parser.parse_args(words))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_line_ends_with_status_two_and_no_traceback(tmp_path):
    done = command("script", "paper=lrta", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("make_tables: paper=lrta: ")
