"""Tables for a paper: label, short caption, notes in a second file, chosen columns and tasks, the best and its ties."""

import re
import shutil
import subprocess

import pytest

from lorta.analysis.significance import analyse
from lorta.analysis.summary import summarise
from lorta.cli.main import main
from lorta.records.store import Store
from lorta.reporting.latex import to_latex, to_latex_notes
from tests.example_records import finished, sweep, the_table, unfinished


def three_methods():
    """Return a table whose best is a, with b next to it and c far away."""
    values = {"a": 0.80, "b": 0.799, "c": 0.5}
    steps = {"a": (0.0, 0.02, 0.01), "b": (0.01, 0.0, 0.02), "c": (0.02, 0.0, 0.01)}
    records = [
        finished(name, seed=seed, value=value + steps[name][seed])
        for name, value in values.items()
        for seed in range(3)
    ]
    table = the_table(records)
    return table, analyse(table, {})


def body(text):
    return text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()


def test_the_best_is_bold_and_what_is_not_significantly_different_has_a_dagger():
    table, analysis = three_methods()
    best, tie, other = (next(line for line in body(to_latex([table], [analysis])) if line[0] == name) for name in "abc")
    assert r"\textbf{81.0 $\pm$ 1.0}" in best and "dagger" not in best
    assert r"80.9 $\pm$ 1.0\textsuperscript{$\dagger$}" in tie and "textbf" not in tie
    assert "textbf" not in other and "dagger" not in other
    assert r"$\dagger$: not significantly different from it (alpha = 0.05)" in to_latex([table], [analysis])


def test_a_caption_is_short_and_the_rest_is_in_the_notes():
    table, analysis = three_methods()
    text, notes = (write([table], [analysis], "my_study") for write in (to_latex, to_latex_notes))
    (caption,) = re.findall(r"\\caption\[\{[^}]*\}\]\{(.*)\}\n", text)
    assert len(caption) < 450 and "Learning rates" not in caption
    assert r"\label{tab:my-study}" in text or r"\label{tab:my_study}" in text
    assert "Learning rates, adapter / head" in notes and "Holm-corrected" in notes
    assert r"\ref{tab:my_study}" in notes
    assert notes.count("{") == notes.count("}") and text.count("{") == text.count("}")


def test_two_tables_have_two_labels():
    records = [*sweep(), *(finished(seed=seed, task="rte", data=1) for seed in range(2))]
    lower = [finished("vera", value=0.5)]
    tables = [the_table(records[:-2]), the_table(lower)]
    assert re.findall(r"\\label\{(.*)\}", to_latex(tables, name="x y")) == ["tab:x-y", "tab:x-y-2"]


def test_chosen_columns_alone_with_their_footnotes():
    table = the_table([*sweep(), *(finished("vera", seed=seed) for seed in range(3))])  # vera lacks one of two tasks
    text = to_latex([table], None, "x", ["parameters", "average"])
    header = text.split(r"\toprule")[1].split(r"\midrule")[0].strip()
    assert header == r"adapter & adapter parameters & average \\"
    vera = next(line for line in body(text) if line.startswith("VeRA"))
    assert vera == r"VeRA (r=4) & 1,000 & --\textsuperscript{1} \\"
    notes = to_latex_notes([table], None, "x", ["parameters", "average"])
    assert notes.count(r"\textsuperscript{") == 1 and r"}VeRA (r=4), average: no value for" in notes


def test_rows_columns_and_notes_have_the_names_that_papers_print():
    records = [finished("lorta", task, rank=11, value=None if task == "cola" else 0.8) for task in ("cola", "stsb")]
    table = the_table([*records, *(finished("head_only", task, rank=None) for task in ("cola", "stsb"))])
    text, notes = to_latex([table]), to_latex_notes([table])
    assert "& CoLA (Matthews correlation) & STS-B (Pearson correlation) & average &" in text
    assert {line.partition(" &")[0] for line in body(text)} == {"LoRTA (r=11)", "Head only"}
    assert r"}LoRTA (r=11), " in notes and "lorta r=11" not in notes


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for record in [*sweep(3), unfinished("failed", adapter="vera", task="cola")]:
        store.write(record)
    return store


def table(store, tmp_path, *options):
    return main(["table", "--runs", str(store.root), "--results", f"{tmp_path}/out", "--uncommitted", *options])


def test_tasks_and_columns_of_the_command(store, tmp_path, capsys):
    assert table(store, tmp_path, "--tasks", "rte,glue/c*", "--columns", "scores,average", "--name", "mine") == 0
    text = (tmp_path / "out" / "reports" / "mine.tex").read_text()
    assert "RTE (accuracy) & average" in text and "stsb" not in text and "parameters" not in text.split("tabular")[1]
    assert (tmp_path / "out" / "reports" / "mine.notes.tex").is_file()
    capsys.readouterr()
    assert table(store, tmp_path, "--tasks", "nonsense") == 2
    assert "no record is of nonsense; there are glue/cola, glue/rte, glue/stsb" in capsys.readouterr().err
    assert table(store, tmp_path, "--columns", "scores,size") == 2
    assert "--columns takes parameters, head, other, scores, average, seconds" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="pdflatex is not installed: apt-get install texlive-latex-recommended"
)
def test_tables_and_notes_compile(tmp_path):
    tables = summarise(
        [*sweep(), finished("a_b%c#~^\\", "rte", None, rank=None), *(finished("d{}&", seed=seed) for seed in range(3))]
    )
    analyses = [analyse(table, {}) for table in tables]
    (tmp_path / "t.tex").write_text(to_latex(tables, analyses, "t_1"))
    (tmp_path / "n.tex").write_text(to_latex_notes(tables, analyses, "t_1"))
    packages = r"\usepackage{booktabs,graphicx}"
    document = (
        rf"\documentclass{{article}}{packages}\begin{{document}}\listoftables\input{{t}}\input{{n}}\end{{document}}"
    )
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # the second run knows the labels
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout and (tmp_path / "all.pdf").stat().st_size > 1000
