import base64
import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorta.analysis.load import Source
from lorta.analysis.losses import History
from lorta.cli.main import main
from lorta.records.record import Question, RunRecord
from lorta.records.store import Store, export, read_export
from lorta.reporting.html.assembly import make_page
from tests.example_records import finished, sweep, unfinished, with_section
from tests.reporting.html.many_records import many

ROOT = Path(__file__).parents[3]


def packed(page: str, key: str) -> dict[str, Any]:
    found = re.search(rf'<script type="application/gzip" id="{key}">([^<]*)</script>', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def expanded(value: Any, shared: list[Any]) -> Any:
    """Do what page.js does."""
    if isinstance(value, list):
        return [expanded(part, shared) for part in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["="]:
        return expanded(shared[value["="]], shared)
    return {key: expanded(part, shared) for key, part in value.items()}


def page_of(records: list[RunRecord], reference: dict[str, RunRecord] | None = None, **losses: History) -> str:
    return make_page("x", Source(records, {}, losses), reference or {})


def test_the_page_has_the_same_bytes_for_any_order_of_records():
    assert page_of(sweep()) == page_of(sweep()[::-1])


def test_the_page_names_nothing_outside_itself():
    page = page_of(sweep())
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []
    assert not re.search(r"@import|url\((?!['\"]?data:)", page)


def test_records_are_whole_in_the_page():
    records = [*sweep(), unfinished("failed", seed=9)]
    data = packed(page_of(records), "data")
    texts = {run: json.dumps(expanded(values, data["shared"])) for run, values in data["records"].items()}
    assert {run: RunRecord.from_json(text, run) for run, text in texts.items()} == {run.run_id: run for run in records}


def test_a_field_that_records_got_later_changes_no_page_of_before():
    """Each new field made the committed page another one, of the same 357 runs."""
    (values,) = packed(page_of([finished()]), "data")["records"].values()
    assert "forgetting" not in values and "reasons" in values
    with_reason = with_section(finished(), "params", changed=3)
    shared = packed(page_of([with_reason]), "data")["shared"]
    assert [section["changed"] for section in shared if "changed" in section] == [3]


def test_what_records_share_is_in_the_page_once():
    data = packed(page_of(sweep()), "data")
    texts = [json.dumps(found, sort_keys=True) for found in data["shared"]]
    assert len(texts) == len(set(texts))


def test_every_score_links_to_the_runs_behind_it():
    records = [finished(seed=seed) for seed in range(2)]
    runs = ",".join(sorted(record.run_id for record in records))
    assert f'<a href="#runs={runs}">' in page_of(records)


def test_runs_without_a_result_are_listed_with_their_reason():
    page = page_of([*sweep(), unfinished("failed", seed=9), unfinished("skipped", seed=8)])
    assert "oom in train: OutOfMemoryError: no memory left" in page
    assert "a TT layer needs a hidden size that factorises" in page
    assert 'href="#without-a-result"' in page
    assert "without-a-result" not in page_of(sweep())


def test_what_records_say_is_no_markup():
    page = page_of([*sweep(), replace(unfinished("skipped"), reason="<b>no</b>")])
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert "<b>no</b>" not in page


def test_only_what_the_page_itself_holds_may_run():
    page = page_of(sweep())
    given = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert given is not None
    policy = html.unescape(given[1])
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for name, pattern in (
        ("script-src", r'<script type="module">(.*?)</script>'),
        ("style-src", r"<style>(.*?)</style>"),
    ):
        (text,) = re.findall(pattern, page, re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in parts[name]
        assert "unsafe" not in parts[name]
    assert parts["default-src"] == "'none'"


def test_plots_hold_no_markup_of_records():
    """plotly reads a name as markup: <a href> would be a link."""
    records = [finished(adapter="<a href='x'>lora</a>", seed=seed) for seed in range(2)]
    figures = json.dumps(packed(page_of(records), "data")["plots"])
    assert "&lt;a href='x'>".replace(">", "&gt;") in figures
    assert "<a href" not in figures


def test_drift_and_provenance_are_told():
    records = [finished(), finished(seed=1)]
    page = page_of(records, {finished().run_id: with_section(finished(value=0.5), "time", wall_s=1.0)})
    assert "1 of 1 runs that were recorded elsewhere have different scores here" in page
    assert "lorta 0.1.0 at aaaaaaaaaaaa" in page


def test_training_curves_are_drawn_of_known_histories():
    record = finished()
    history = History(record.run_id, "x", (10, 20), (1.0, 0.5))
    assert "<h3>Training loss</h3>" in page_of([record], {}, **{record.run_id: history})
    assert "<h3>Training loss</h3>" not in page_of([record])


def test_the_command_reads_a_store_or_exported_suites(tmp_path, capsys):
    store = Store(tmp_path / "runs")
    for record in sweep():
        store.write(record)
    export(sweep(), tmp_path / "records" / "x.jsonl")
    for source in (["--runs", str(store.root)], ["--records", str(tmp_path / "records" / "x.jsonl")]):
        assert main(["report", *source, "--to", str(tmp_path / "page.html"), "--results", str(tmp_path)]) == 0
        assert f"page.html: {len(sweep())} runs" in capsys.readouterr().out
        assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_the_command_takes_a_title_and_filters_and_says_that_it_replaces(tmp_path, capsys):
    store = Store(tmp_path / "runs")
    for record in [finished("lora", value=0.7), finished("vera", value=0.8)]:
        store.write(record)
    command = ["report", "vera", "--runs", str(store.root), "--to", str(tmp_path / "page.html"), "--title", "My runs"]
    assert main(command) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<h1>My runs</h1>" in page and "vera r=4" in page and "lora r=4" not in page
    assert "in place of" not in capsys.readouterr().out
    assert main(command) == 0
    assert "(in place of the one of before)" in capsys.readouterr().out


def test_a_table_of_a_single_run_stands_last():
    """Its protocol is the lower one: without regard to the number of runs, it stood first."""
    later = [with_section(record, "task", protocol=9) for record in sweep()]
    headings = re.findall(r'<h2 id="table-\d+[^>]*>([^<]*)', page_of([finished(seed=9), *later]))
    assert ["protocol 1" in text for text in headings] == [False, True]


def test_a_cell_names_its_note_and_a_figure_its_axes():
    records = read_export(ROOT / "results" / "records" / "smollm2_instruct.jsonl.gz")
    page = make_page("x", Source(records, {}, {}), {})
    assert re.search(r"57,600\s*(</a>)?\s*<sup>\[1\]</sup>", page)
    options = re.findall(r"<option>([^<]*)", page)
    assert {"adapter parameters", "training time, s", "training peak memory, MiB", "stored adapter, KiB"} <= set(
        options
    )


def test_notes_of_tables_and_of_numbers_are_folded():
    page = page_of([*sweep(), *(finished("vera", seed=seed) for seed in range(3))])  # which lacks a task
    for summary in ("Notes on scores (", "How these numbers came about"):
        assert f'<details class="folded"><summary>{summary}' in page
    assert not re.search(r"<details[^>]* open", page)


def test_drift_is_against_the_other_collected_suites(tmp_path):
    for name, value in (("here", 0.8), ("there", 0.7)):
        export([replace(finished(), metrics=finished(value=value).metrics)], tmp_path / "records" / f"{name}.jsonl")
    suite = str(tmp_path / "records" / "here.jsonl")
    assert main(["report", "--records", suite, "--to", str(tmp_path / "page.html"), "--results", str(tmp_path)]) == 0
    assert "1 of 1 runs that were recorded elsewhere have different scores here" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--runs", "nowhere", "--to", "a.html"], "there is no nowhere"),
        (["--runs", ".", "--to", "a.html"], "there is no record to report"),
        (["--runs", ".", "--to", "a.pdf"], "ends in .html, got a.pdf"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, monkeypatch, capsys, words, problem):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert problem in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ten_thousand_records_are_a_page_of_under_12_megabytes_in_under_15_seconds(tmp_path):
    found = many()
    start = time.process_time()
    page = make_page("many", found, {})
    assert time.process_time() - start < 15
    assert len(found.records) > 10_000
    assert len(page.encode()) < 12e6


def test_the_command_imports_no_torch(tmp_path):
    export(sweep(), tmp_path / "records" / "x.jsonl")
    code = (
        "import sys; from lorta.cli.main import main\n"
        "assert main(['report', '--records', 'records/x.jsonl', '--to', 'x.html']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})


def test_the_page_of_a_study_of_seeds_has_the_shares_of_their_variance():
    seeds = [(i, o, d) for i in (0, 1) for o in (0, 1) for d in (0, 1)]
    records: list[RunRecord] = []
    for i, o, d in seeds:
        record = finished(value=0.8 + i / 100 + o / 1000)
        config = {**record.config, "init_seed": i, "order_seed": o, "dropout_seed": d}
        records.append(replace(record, run_id=f"{i}{o}{d}".zfill(12), config=config))
    page = page_of([*records, finished("vera")])
    assert "Where the variance comes from" in page
    row = re.search(r'<th scope="row">lora r=4, glue/rte</th><td>initialisation</td><td>(\d+)%</td>', page)
    assert row and int(row[1]) > 90
    assert "Where the variance comes from" not in page_of(sweep())


def test_the_page_says_verdicts_in_sentences_before_their_table():
    questions = (Question(method="lorta r=4", reference="lora r=4", margin=1.0),)
    records = [
        replace(finished(name, value=0.8 + seed / 1000, seed=seed, parameters=size), questions=questions)
        for name, size in (("lora", 4000), ("lorta", 400))
        for seed in range(3)
    ]
    page = page_of(records)
    said = "with 10 times fewer trained parameters (400 against 4,000)."
    assert 0 < page.index(said) < page.index("Questions that the study stated")
    first = re.findall(r"<p[^>]*>([^<]*)</p>", page.partition('class="lead"')[2])[0]
    assert re.match(r"LoRTA \(r=4\) is \w+ \w+ LoRA \(r=4\) on RTE: difference ", first)


def plots_of(sizes: dict[str, int]) -> list[dict[str, Any]]:
    return packed(page_of([finished(name, parameters=size) for name, size in sizes.items()]), "data")["plots"]


@pytest.mark.parametrize(
    ("sizes", "step"), [((1000,), "D2"), ((1000, 5000), "D2"), ((1000, 2000), None), ((1, 1000), 1)]
)
def test_labels_of_an_axis_of_logarithms_do_not_collide(sizes, step):
    """80k, 90k and 100k stood over each other at 1440 pixels."""
    plot = plots_of({f"m{size}": size for size in sizes})[0]
    assert plot["layout"]["xaxis"].get("dtick") == step


def test_the_only_method_with_an_average_is_not_called_the_best():
    page = page_of([finished("lora"), finished("lora", "cola", 0.4), finished("vera", value=0.9)])
    assert "<p>Only LoRA (r=4) has a score on every task, average 60.0.</p>" in page
    assert "Best: " not in page and "1 curve." in page
