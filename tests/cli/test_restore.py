"""`lorta restore`: committed records count as done in a clone, and changed ones are refused with nothing written."""

import gzip
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from lorta.analysis.item_scores import Line, items_file, stored_items, write_items
from lorta.cli.main import COMMANDS, main
from lorta.cli.run import main as run_main
from lorta.config.identity import VERSION
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.locks import take
from lorta.records.record import SideFile
from lorta.records.store import Store, export, read_export
from lorta.records.suites import SUMS_NAME, export_suite, seal
from lorta.runner.record_builder import first_record
from tests.example_records import finished, unfinished

WORDS = ["adapter=lora,lorta", "rank=2", "task=glue/rte", "trainer=smoke", "seed=0,1"]


@pytest.fixture
def suite(tmp_path):
    """Return the overrides of a sweep, its committed records and their file: three results and a failure."""
    words = [*WORDS, f"runtime.runs={tmp_path}/runs", f"runtime.results={tmp_path}/mine"]
    records = []
    for number, spec in enumerate(make_plan(words, True, CONF).specs):
        first = first_record(spec)
        own = {name: getattr(first, name) for name in ("run_id", "cell_id", "config_hash", "config", "adapter", "seed")}
        result = finished() if number < 3 else unfinished("failed")
        predictions = SideFile(path="predictions.jsonl", sha256="f" * 64, n=277)
        records.append(replace(result, **own, identity_version=VERSION, predictions_file=predictions))
    items = items_file(tmp_path / "results", "study")
    ones = round(277 * 0.8)
    scored = with_score(records[0], ones / 277)
    file = export_suite([scored, *records[1:]], tmp_path / "results", "study")
    write_items([Line(scored.run_id, "f" * 64, "accuracy", (1.0,) * ones + (0.0,) * (277 - ones))], items)
    seal(items)
    return words, read_export(file), file


def with_score(record, value):
    score = replace(record.primary_score, value=value)
    return replace(record, metrics={record.task.split_primary: {record.task.metric_primary: score}})


def restore(file, tmp_path) -> int:
    return main(["restore", str(file), "--runs", f"{tmp_path}/runs"])


def test_restored_runs_are_done_with_the_scores_of_their_rows(suite, tmp_path, capsys):
    words, records, file = suite
    assert restore(file, tmp_path) == 0
    assert "3 restored, 1 without a result, not restored" in capsys.readouterr().out
    assert main(["status", "-m", *words]) == 0
    assert "4 runs: 3 done, 1 missing" in capsys.readouterr().out
    store = Store(tmp_path / "runs")
    done = [record for record in records if record.status == "success"]
    assert store.records() == sorted(done, key=lambda record: record.run_id)
    assert [len(items) for items in stored_items(done, store).values()] == [277]


def test_what_the_store_has_stays_and_what_is_at_work_is_left(suite, tmp_path, capsys):
    _, records, file = suite
    done = [record for record in records if record.status == "success"]
    store, other = Store(tmp_path / "runs"), with_score(done[0], 0.5)
    store.write(other)
    claim = take(store.folder(done[1].run_id))
    assert claim is not None
    with claim:
        assert restore(file, tmp_path) == 0
    assert "1 restored, 1 already in the store, left as they are, 1 at work" in capsys.readouterr().out
    assert store.read(other.run_id) == other
    assert store.read(done[1].run_id) is None


@pytest.mark.parametrize("example", COMMANDS["restore"].examples)
def test_the_examples_of_the_help_run(example, suite, tmp_path, monkeypatch, capsys):
    _, records, file = suite
    monkeypatch.chdir(tmp_path)
    for copy in (file.with_name("minilm_study.jsonl"), tmp_path / "theirs.jsonl.gz"):
        export(records, copy)
        seal(copy)
    command, *words = example.split()
    found = [[str(path) for path in sorted(Path().glob(word))] if "*" in word else [word] for word in words]
    assert main([command, *chain(*found)]) == 0
    assert "3 restored, 1 without a result" in capsys.readouterr().out
    assert len(Store("theirs" if "theirs" in words else "runs").records()) == 3


def change(file, old: str, new: str) -> None:
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    assert old in text
    text = text.replace(old, new, 1)
    file.write_bytes(gzip.compress(text.encode(), mtime=0) if file.suffix == ".gz" else text.encode())


@pytest.mark.parametrize(
    "what", ["a score", "a setting", "the scores of rows", "no checksum", "torn checksums", "a folder", "gone"]
)
def test_changed_records_are_refused_with_a_sentence_and_nothing_written(suite, tmp_path, capsys, what):
    _, _, file = suite
    sums, items = file.parent / SUMS_NAME, items_file(tmp_path / "results", "study")
    said = {
        "a score": "was changed after it was collected",
        "a setting": "its config hashes to",
        "the scores of rows": f"{items} was changed",
        "no checksum": "does not name it",
        "torn checksums": "line 1: a SHA-256",
        "a folder": "is a folder",
        "gone": "there is no",
    }
    if what == "a score":
        change(file, '"value": 0.8', '"value": 0.9')
    elif what == "a setting":  # and the checksum with it
        change(file, '"learning_rate": 0.01', '"learning_rate": 0.02')
        seal(file)
    elif what == "the scores of rows":
        change(items, "1110", "1101")
    elif what == "no checksum":
        sums.unlink()
    elif what == "torn checksums":
        sums.write_text("abc")
    elif what == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()
    assert restore(file, tmp_path) == 2
    assert said[what] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_sweep_says_which_of_its_runs_are_committed_and_takes_none(suite, tmp_path, capsys, monkeypatch):
    words, _, file = suite
    monkeypatch.setattr("lorta.status.committed.RECORDS", file.parent)
    assert main(["plan", "-m", *words, "runtime.name=study"]) == 0
    command = f"lorta restore {file} --runs {tmp_path}/runs"
    said = f"3 of the runs to do are committed in {file}; to take them instead: {command}"
    assert said in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    for more in (["runtime.name=other"], ["runtime.name=study", "runtime.force=true"]):
        assert main(["plan", "-m", *words, *more]) == 0
    assert restore(file, tmp_path) == 0
    assert main(["plan", "-m", *words, "runtime.name=study"]) == 0
    assert "committed in" not in capsys.readouterr().out


def test_a_run_says_so_before_it_starts(suite, capsys, monkeypatch):
    words, _, file = suite
    monkeypatch.setattr("lorta.status.committed.RECORDS", file.parent)
    monkeypatch.setattr("lorta.cli.run.run_plan", lambda *given, **named: 0)
    assert run_main(["-m", *words, "runtime.name=study"]) == 0
    assert "3 of the runs to do are committed" in capsys.readouterr().out


def test_a_suite_has_one_file_whose_checksum_sha256sum_would_accept(tmp_path):
    records = [finished(seed=seed) for seed in range(101)]
    plain = export_suite(records[:3], tmp_path, "a")
    export_suite(records[:2], tmp_path, "b")
    compressed = export_suite(records, tmp_path, "a")
    assert (plain.exists(), compressed.suffix) == (False, ".gz")
    lines = (tmp_path / "records" / SUMS_NAME).read_text().splitlines()
    assert [line[64:] for line in lines] == ["  a.jsonl.gz", "  b.jsonl"]


def test_a_collected_suite_can_be_restored_elsewhere(suite, tmp_path, capsys):
    words, _, file = suite
    assert restore(file, tmp_path) == 0
    assert main(["collect", "-m", *words, "--name", "again", "--results", f"{tmp_path}/theirs"]) == 0
    assert "3 records (3 success), 1 with the scores of their rows" in capsys.readouterr().out
    assert main(["restore", f"{tmp_path}/theirs/records/again.jsonl", "--runs", f"{tmp_path}/clone"]) == 0
    assert Store(tmp_path / "clone").records() == Store(tmp_path / "runs").records()
