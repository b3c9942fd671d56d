import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorta.analysis.significance import analyse
from lorta.analysis.summary import summarise
from lorta.records.record import RunRecord, Spread
from lorta.records.store import export
from lorta.reporting.captions import caption, title, without_result
from lorta.reporting.csv_tables import to_csv, to_long_csv
from lorta.reporting.latex import to_latex
from lorta.reporting.report import write_report
from lorta.reporting.tables import interval_grid, to_markdown
from tests.example_records import finished, sweep, the_table, unfinished, with_section

ROOT = Path(__file__).parents[2]


def test_what_did_not_finish_is_counted_and_named():
    records = [
        finished(),
        *(unfinished("failed", seed=seed) for seed in range(2)),
        unfinished("skipped", adapter="vera"),
    ]
    assert without_result([*records, unfinished("running", adapter="full", rank=None)]) == [
        "2 failed:",
        "  lora r=4: oom in train: OutOfMemoryError: no memory left (glue/rte, seeds 0, 1)",
        "1 running:",
        "  full: no result yet (glue/rte, seed 0)",
        "1 skipped:",
        "  vera r=4: a TT layer needs a hidden size that factorises (glue/rte, seed 0)",
    ]
    assert "## Runs without a result" in to_markdown(summarise(records), records)


def test_run_that_failed_before_its_sections_were_known_is_still_named():
    record = replace(unfinished("failed"), adapter=None, task=None, model=None, protocol=None)
    assert without_result([record])[1].startswith("  lora: oom in train")


def test_no_finished_run_gives_a_sentence_and_no_figure(tmp_path):
    assert write_report([unfinished("running")], "x", tmp_path).startswith("No run has finished yet.")
    assert not (tmp_path / "figures").exists()


def test_caption_says_what_a_reader_must_know():
    capped = with_section(
        with_section(finished(), "task", max_train_samples=2000), "protocol", selection="best", tuned=True
    )
    table = the_table([with_section(capped, "code", git_dirty=True)])
    text = " ".join([title(table), *caption(table)])
    for fact in (
        "tiny, embedded data, protocol 1, at most 2,000 training rows per task, 3 epochs, best epoch",
        "training rows / scored rows: 2,000 / 277",
        "selected on the reported rows",
        "validation split",
        "only seed 0",
        "lora 0.001 / 0.002 (tuned)",
        "1 of 1 runs had uncommitted changes",
    ):
        assert fact in text


def test_methods_no_better_than_a_head_alone_are_named():
    scores = {"head_only": (0.6, 0.5), "lora": (0.6, 0.9), "vera": (0.7, 0.4), "lorta": (0.61, 0.51)}
    records = [
        finished(name, task, of[place]) for name, of in scores.items() for place, task in enumerate(("rte", "cola"))
    ]
    said = [line for line in caption(*summarise(records)) if "head alone" in line]
    assert said == ["No better than a head alone, at these settings: lora r=4 (rte), vera r=4 (cola)."]
    assert not any("head alone" in line for line in caption(*summarise(records[2:])))
    losses = [replace(of, task=replace(of.task, higher_is_better=False)) for of in records if "rte" in of.task.name]
    (of_losses,) = [line for line in caption(*summarise(losses)) if "head alone" in line]
    assert of_losses.endswith("lora r=4 (rte), lorta r=4 (rte), vera r=4 (rte).")


def test_timings_of_different_environments_are_called_incomparable():
    table = the_table([finished(), replace(finished("vera"), env_fingerprint="another")])
    assert "Training seconds were measured in 2 different environments and cannot be compared." in caption(table)


def test_long_csv_has_one_line_per_run_and_metric():
    records = [finished(), unfinished("failed", seed=1)]
    success, failed = sorted(csv.DictReader(io.StringIO(to_long_csv(records))), key=lambda line: line["seed"])
    assert (success["metric"], success["value"], success["n"], success["adapter_parameters"]) == (
        "accuracy",
        "0.8",
        "277",
        "1000",
    )
    assert (failed["status"], failed["failure"], failed["value"], failed["adapter_parameters"]) == (
        "failed",
        "oom",
        "",
        "",
    )
    assert failed["reason"] == "no memory left\nat step 3"


def test_wide_csv_holds_the_numbers_of_the_table():
    table = the_table(sweep())
    lines = list(csv.DictReader(io.StringIO(to_csv([table], [analyse(table, {})]))))
    assert len(lines) == len(table.rows)
    for line, row in zip(lines, table.rows, strict=True):
        assert float(line["glue/rte mean"]) == row.cells["glue/rte"].mean
        assert float(line["average low95"]) <= row.average.mean <= float(line["average high95"])  # type: ignore[operator]
        assert (line["glue/rte seeds"], int(line["adapter_parameters_low"])) == ("0 1 2", row.adapter_parameters.low)


def test_latex_escapes_and_balances_what_it_prints():
    text = to_latex(summarise([*sweep(), finished("a_b%c", "rte", None, rank=None)]))
    assert r"a\_b\%c" in text
    assert r"$\pm$" in text
    assert not set("±–") & set(text)  # noqa: RUF001
    assert text.count("{") == text.count("}")
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count(" & ") for line in body} == {7}


def test_markdown_rows_have_as_many_cells_as_the_header():
    text = to_markdown(summarise([*sweep(), finished("a|b", "rte", rank=None)]), [])
    scores, _, sizes = text.partition("### Sizes")
    for part, columns in ((scores, 8), (sizes, sizes.splitlines()[2].count("|") - 1)):
        lines = [line.replace("\\|", "") for line in part.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in lines} == {columns + 1}


def methods_in(lines: list[str]) -> list[str]:
    """Return the first words of a Markdown table's rows."""
    return [line.split()[1] for line in lines if line.startswith("| ") and not line.startswith(("| adapter", "|-"))]


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_method_is_first_in_every_table_of_a_report(higher):
    scores = {"lora": (0.7, None), "vera": (0.9, None), "lorta": (0.8, 12)}
    records = [finished(name, value=value, rank=rank) for name, (value, rank) in scores.items()]
    table = the_table([with_section(record, "task", higher_is_better=higher) for record in records])
    expected = ["vera", "lorta", "lora"] if higher else ["lora", "lorta", "vera"]
    parts = to_markdown([table], [], [analyse(table, {})]).split("###")
    assert [methods_in(part.splitlines()) for part in parts if "| adapter |" in part] == [expected] * 2


def test_footnotes_are_numbered_from_the_top_of_the_table():
    records = [finished(name, task="rte", value=value) for name, value in (("lora", 0.7), ("vera", 0.9))]
    table = the_table([*records, *(finished("lorta", task, value=0.99) for task in ("rte", "cola"))])
    lines = to_markdown([table], []).splitlines()
    assert methods_in(lines[:7]) == ["lorta", "lora", "vera"]  # those without an average last
    rows = [re.findall(r"\[(\d)\]", line) for line in lines if line.startswith(("| lora", "| vera"))][:2]
    assert rows == [["1", "2", "3"], ["4", "5", "6"]]
    assert next(line for line in lines if line.startswith("- [1]")).startswith("- [1] lora r=4, cola")


def test_intervals_end_where_the_metric_does():
    table = the_table([finished(value=value, seed=seed) for seed, value in enumerate((0.8, 1.0, 1.0))])
    analysis = analyse(table, {})
    assert analysis.intervals[0, "glue/rte"].high > 100
    (row,) = interval_grid(table, analysis).body
    assert row[1].endswith(", 100.0]")
    (line,) = csv.DictReader(io.StringIO(to_csv([table], [analysis])))
    assert (line["glue/rte high95"], line["average high95"]) == ("100.0", "")


def test_the_csv_has_the_intervals_of_the_report():
    """It had accuracies of up to 127, where report and page end at 100."""
    records = [
        finished(task=task, value=value, seed=seed)
        for task in ("rte", "mrpc")
        for seed, value in enumerate((0.8, 1.0, 1.0))
    ]
    table = the_table(records)
    analysis = analyse(table, {})
    (line,), (row,) = csv.DictReader(io.StringIO(to_csv([table], [analysis]))), interval_grid(table, analysis).body
    bounds = [[line[f"{column} {end}95"] for end in ("low", "high")] for column in ("glue/mrpc", "glue/rte", "average")]
    bounds.append([line[f"interquartile_mean {end}95"] for end in ("low", "high")])
    assert [text.partition(" ")[2] for text in row[1:5]] == [f"[{float(a):.1f}, {float(b):.1f}]" for a, b in bounds]
    assert analysis.intervals[0, "average"].high > 100


def test_one_task_has_no_column_for_the_average():
    assert "average" not in to_markdown(summarise([finished()]), []).splitlines()[2]
    assert "average" in to_markdown(summarise(sweep()), []).splitlines()[2]


def test_report_has_the_same_bytes_for_any_order_of_records(tmp_path):
    records = [*sweep(tasks=3, seeds=2), unfinished("failed", adapter="vera"), unfinished("skipped", adapter="ia3")]
    write_report(records, "x", tmp_path / "a")
    write_report(records[::-1], "x", tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert [str(path) for path in files] == [
        "figures/x.png",
        "reports/x.comparisons.csv",
        "reports/x.csv",
        "reports/x.md",
        "reports/x.notes.tex",
        "reports/x.runs.csv",
        "reports/x.tex",
    ]
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    assert b"Software" not in (tmp_path / "a" / "figures" / "x.png").read_bytes()  # it would name matplotlib's version


def test_figure_draws_every_method_and_the_head_alone_as_a_line_across(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **options: drawn.append(figure))
    write_report([*sweep(), with_section(finished("vera"), "task", protocol=2)], "x", tmp_path)
    parts: Any = drawn[0].subfigs  # matplotlib's types are not those of what it draws
    first, second = parts
    average, rte, *_ = first.axes
    curves = {tuple(np.round(np.array(bars.lines[0].get_xdata(), float), 6)) for bars in average.containers}  # pyright: ignore
    assert curves == {(360.0, 720.0), (4096.0, 8192.0)}
    assert any(tuple(line.get_ydata()) == (50.0, 50.0) for line in average.lines)
    assert (average.get_xscale(), average.get_title(), rte.get_title()) == ("log", "average", "RTE (accuracy)")
    assert {text.get_text() for text in first.legends[0].get_texts()} == {
        "Pareto front",
        "Head only, 0 adapter parameters",
        "LoRA",
        "LoRTA",
    }
    assert [axis.get_title() for axis in second.axes] == ["RTE (accuracy)"]


def many_records() -> list[RunRecord]:
    """Return 10,080 runs: 42 methods at 8 ranks on six tasks with five seeds."""
    tasks = ("rte", "stsb", "cola", "mrpc", "qnli", "sst2")
    cells = [(f"m{number}", 2**rank, task) for number in range(42) for rank in range(8) for task in tasks]
    return [
        finished(name, task, 0.5 + (7 * int(name[1:]) + 13 * seed + 5 * rank) % 97 / 300, seed, rank, 100 * rank)
        for name, rank, task in cells
        for seed in range(5)
    ]


def test_ten_thousand_records_become_all_tables_in_20_times_the_time_of_parsing_them(tmp_path):
    """Three seconds on a processor that reads and parses them in 0.2; others are slower in both."""
    export(many_records(), tmp_path / "many.jsonl")
    code = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "for line in Path(sys.argv[1]).read_text().splitlines():\n"
        "    json.loads(line)\n"
        "parsing = time.process_time()\n"
        "from lorta.reporting.report import write_report\n"
        "from lorta.records.store import read_export\n"
        "from lorta.analysis.validation import refuse_untrusted\n"
        "records = read_export(Path(sys.argv[1]))\n"
        "refuse_untrusted(records, 'many')\n"
        "assert len(records) > 10_000\n"
        "assert 'm41 r=128' in write_report(records, 'many', Path(sys.argv[2]), figure=False)\n"
        "assert not {'torch', 'pandas', 'matplotlib', 'scipy.stats', 'statsmodels'} & set(sys.modules)\n"
        "print((time.process_time() - parsing) / parsing)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "many.jsonl"), str(tmp_path)]

    def times() -> float:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    assert any(times() < 20 for _ in range(3))  # other processes on the machine slow down some


def make_tables(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "make_tables.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_script_prints_the_table_it_writes(tmp_path):
    export([finished()], tmp_path / "x.jsonl")
    done = make_tables("--records", str(tmp_path / "x.jsonl"), "--name", "x", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "x.md").read_text().strip() == done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--runs", "nowhere", "--name", "x"], "there is no nowhere"),
        (["--records", "{folder}/torn.jsonl", "--name", "x"], "torn.jsonl, line 1 is not a record"),
        (["--runs", "{folder}", "--name", "../x"], "must be a file name without folders"),
    ],
)
def test_script_refuses_bad_input_with_status_two(tmp_path, arguments, problem):
    (tmp_path / "torn.jsonl").write_text("{\n")
    done = make_tables(*(text.format(folder=tmp_path) for text in arguments), "--results", str(tmp_path / "results"))
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_collapsed_run_has_a_footnote_a_column_and_a_place_on_the_page(tmp_path):
    constant = Spread(predictions_std=0.01, labels_std=1.5, predicted_classes=None, label_classes=None, collapsed=True)
    records = [replace(record, spread=constant) if record.seed == 1 else record for record in sweep(tasks=1)]
    markdown = write_report(records, "x", tmp_path, figure=False)
    assert "lora r=4, glue/rte: 1 of 3 runs collapsed to (nearly) one answer, seed 1" in markdown
    header, *lines = (tmp_path / "reports" / "x.runs.csv").read_text().splitlines()
    assert "predictions_std,labels_std,predicted_classes,label_classes,collapsed" in header
    assert sum(",0.01,1.5,,,True," in line for line in lines) == 5
    write_report(sweep(tasks=1), "old", tmp_path, figure=False)
    assert "collapsed" not in (tmp_path / "reports" / "old.runs.csv").read_text()
