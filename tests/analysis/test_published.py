import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lorta.analysis import published
from lorta.analysis.published import FOLDER, Line, Paper, lines, load, parameter_range

ROOT = Path(__file__).parents[2]
PAPERS = sorted(file.stem for file in FOLDER.glob("*.yaml"))
DESIGNED = {  # the tables and figures of LoRTA's paper and release that are to be regenerated
    *("glue_base", "glue_large", "glue_tensor", "qa_7b", "qa_13b", "instruct_loss_7b", "instruct_loss_13b", "mt_bench"),
    *(
        "dpo_loss",
        "dpo_mt_bench",
        "folding",
        "transfer_times",
        "training_cost",
        "early_rank_sweep",
        "gsm8k",
        "metamath",
    ),
    *("arithmetic", "commonsense"),
}


@cache
def all_lines() -> list[Line]:
    papers = [load(name) for name in PAPERS]
    return [line for paper in papers for table in paper.tables for line in lines(paper, table)]


@pytest.mark.parametrize("name", PAPERS)
def test_every_committed_paper_fits_the_schema(name):
    paper = load(name)
    assert all(lines(paper, table) for table in paper.tables)


def test_lortas_tables_and_figures_are_all_there():
    assert set(load("lorta").tables) == DESIGNED


def test_every_score_names_its_source_and_how_sure_it_is():
    assert all(line.row.source and line.row.confidence for line in all_lines() if line.row.scores)


@pytest.mark.parametrize(
    ("place", "method", "column", "value", "spread"),
    [
        ("vera.glue_base", "VeRA r=1024", "cola", 65.6, 0.8),
        ("vera.glue_large", "LoRA r=8", "rte", 85.2, 1.1),
        ("lora.glue_base", "LoRA r=8", "mnli_mm", 86.9, 0.3),
        ("loretta.glue_roberta", "LoRETTA adp r=5", "rte", 78.70, None),
        ("lotr.glue_base", "LoTR r=16", "stsb", 87.6, None),
        ("adalora.glue_deberta", "AdaLoRA r=8", "qqp_f1", 89.74, None),
        ("lorta.transfer_times", "LoRTA r=64", "hundred", 61.5, 0.1),
        ("lorta.early_rank_sweep", "LoRA r=1", "held_out", 1.403, None),
        ("vera.mt_bench", "LoRA on Llama-2-13B r=64", "score", 5.77, None),
        ("llm_adapters.commonsense", "LoRA r=32", "boolq", 68.9, None),
    ],
)
def test_numbers_are_those_of_the_sources(place, method, column, value, spread):
    paper, _, table = place.partition(".")
    (row,) = [line.row for line in lines(load(paper), table) if f"{line.row.method} r={line.row.rank}" == method]
    assert (row.scores[column].value, row.scores[column].spread) == (value, spread)


@pytest.mark.parametrize(
    "line",
    [line for line in all_lines() if line.row.average is not None],
    ids=lambda line: f"{line.origin} {line.row.method}",
)
def test_printed_averages_are_those_of_the_scores(line):
    """A mistyped digit shows here; papers that average otherwise say so in a note."""
    scores = {column: found.value for column, found in line.row.scores.items()}
    pairs = {"mnli": "mnli_mm", "qqp": "qqp_f1", "stsb": "stsb_spearman"}
    grouped = [
        (scores[column] + scores[pairs[column]]) / 2
        if line.origin.startswith("adalora") and pairs.get(column) in scores
        else scores[column]
        for column in scores
        if column not in pairs.values()
    ]
    if grouped:
        assert sum(grouped) / len(grouped) == pytest.approx(line.row.average, abs=0.07)


def test_counts_that_follow_from_a_formula_do():
    per_rank = {"roberta_base": 860, "roberta_large": 1132, "llama2_7b": 4292, "llama_7b": 4292, "llama2_13b": 5332}
    own = [line.row for line in all_lines() if line.row.adapter == "lorta" and line.row.rank and line.row.parameters]
    assert len(own) > 40
    assert [row for row in own if row.parameters != row.rank * per_rank[row.model or ""]] == []


def test_a_row_takes_from_its_table_what_it_does_not_say():
    row = next(line.row for line in lines(load("vera"), "glue_base") if line.row.method == "VeRA")
    assert (row.model, row.selection, row.counted, row.confidence) == ("roberta_base", "best", ("adapter",), "verified")
    quoted = next(line.row for line in lines(load("vera"), "glue_base") if line.row.method == "BitFit")
    assert (quoted.selection, quoted.seeds) == ("unknown", None)


def test_null_at_a_row_is_not_known_even_if_the_table_knows():
    row = next(line.row for line in lines(load("loretta"), "glue_roberta") if line.row.method == "LoRA")
    assert row.counted is None


def test_quoted_rows_come_first_with_their_origin():
    found = lines(load("lorta"), "glue_base")
    assert [line.origin for line in found] == ["vera.glue_base"] * 6 + ["lorta.glue_base"] * 2


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [("0.3M", 250_000, 350_000), (".07M", 65_000, 75_000), ("125M", 124.5e6, 125.5e6), (3440, 3440, 3440)],
)
def test_printed_counts_stand_for_what_rounds_to_them(printed, low, high):
    assert parameter_range(printed) == (pytest.approx(low), pytest.approx(high))


PAPER = """
paper: own
title: t
citation: c
tables:
  one:
    title: t
    model: roberta_base
    source: s
    confidence: verified
    columns: {rte: {task: glue/rte, metric: accuracy}}
    rows:
      - {method: LoRA, adapter: lora, rank: 8, parameters: 0.3M, scores: {rte: 80.0}}
"""


def the_paper(folder: Path, text: str) -> Paper:
    (folder / "own.yaml").write_text(text)
    return load("own", folder)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{rte: 80.0}", "{rta: 80.0}", r"own.yaml: tables.one.rows.0 \(LoRA\).scores: rta is no column; known: rte"),
        ("{rte: 80.0}", "{rte: high}", "own.yaml: tables.one.rows.0.scores.rte"),
        ("{rte: 80.0}", "{rte: .nan}", "own.yaml: tables.one.rows.0.scores.rte.value=nan"),
        ("{rte: 80.0}", "{rte: [80.0, -1]}", "own.yaml: tables.one.rows.0.scores.rte.spread=-1"),
        ("rank: 8", "rank: 0", "own.yaml: tables.one.rows.0.rank=0"),
        ("rank: 8", "rnak: 8", "own.yaml: tables.one.rows.0.rnak=8: extra inputs are not permitted"),
        ("0.3M", "many", "parameters must be a whole number, or a number with k, M or B, got 'many'"),
        ("    source: s\n", "", "a row with scores needs source, here or at the table"),
        ("verified", "certain", "own.yaml: tables.one.confidence='certain'"),
        ("metric: accuracy", "metric: accuracy, unit: ms", "a column in ms needs a margin"),
        ("paper: own", "paper: other", "paper='other' must be the name of the file"),
        ("title: t\ncit", "title: [\ncit", "own.yaml is no YAML"),
    ],
)
def test_a_wrong_entry_is_refused_with_file_and_key(tmp_path, old, new, problem):
    with pytest.raises(ValueError, match=problem):
        the_paper(tmp_path, PAPER.replace(old, new, 1))


def test_an_entry_without_scores_needs_no_source(tmp_path):
    assert the_paper(tmp_path, PAPER.replace(", scores: {rte: 80.0}", "").replace("    source: s\n", ""))


def test_unknown_papers_tables_and_quotations_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"paper=lorat: .* did you mean lora"):
        load("lorat")
    with pytest.raises(ValueError, match="table=glue_bas: lorta has no such table; did you mean glue_base"):
        lines(load("lorta"), "glue_bas")
    (tmp_path / "own.yaml").write_text(PAPER)
    (tmp_path / "other.yaml").write_text(
        PAPER.replace("paper: own", "paper: other")
        .replace("rte: {task: glue/rte", "cola: {task: glue/cola")
        .replace("scores: {rte: 80.0}", "scores: {}")
        .replace("    model:", "    include: [own.one]\n    model:")
    )
    with pytest.raises(ValueError, match=r"tables.one.include: own.one has other columns: rte"):
        lines(load("other", tmp_path), "one", tmp_path)


def test_the_ledger_is_read_without_torch():
    code = "import sys; from lorta.analysis.published import load; load('lorta'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_adapters_and_glue_tasks_of_the_ledger_exist():
    adapters = {file.stem for file in (ROOT / "conf" / "adapter").glob("*.yaml")}
    tasks = {f"glue/{file.stem}" for file in (ROOT / "conf" / "task" / "glue").glob("*.yaml")}
    used = {line.row.adapter for line in all_lines()} - {None}
    columns = [column for line in all_lines() for column in line.table.columns.values()]
    assert used <= adapters
    assert {column.task for column in columns if (column.task or "").startswith("glue/")} <= tasks
    assert published.ALL not in {name for line in all_lines() for name in line.table.columns}
