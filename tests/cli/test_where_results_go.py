"""What a command leaves in the checkout, and what is said of runs that have to be done again."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lorta.analysis.summary import summarise
from lorta.cli.main import main
from lorta.records.record import Split
from lorta.records.store import Store, export
from tests.example_records import finished, unfinished


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with a committed suite, and a store of one's own."""
    monkeypatch.chdir(tmp_path)
    export([finished()], tmp_path / "results" / "records" / "suite.jsonl")
    (tmp_path / "results" / "records" / "SHA256SUMS").write_text("")
    (tmp_path / ".gitignore").write_text("runs/\nresults/local/\n")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], check=True)
    Store("runs").write(finished("vera"))
    return tmp_path


@pytest.mark.parametrize("words", ["collect", "table paper=lorta table=glue_base", "table paper=loretta", "table"])
def test_a_checkout_stays_as_it_is_unless_a_suite_is_asked_for(words, checkout, capsys):
    assert main(words.split()) == 0
    said = capsys.readouterr()
    left = subprocess.run(["git", "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True).stdout
    assert [line for line in left.splitlines() if not line.startswith("A  ")] == []
    assert "results/local/" in said.out + said.err
    assert "runtime.force" not in said.err or words == "table", "committed records are of earlier commits"


def test_a_table_in_place_of_another_says_so_and_has_the_width_that_is_asked_for(checkout, capsys, monkeypatch):
    widths = []
    monkeypatch.setattr("lorta.reporting.report.plot", lambda *given: widths.append(given[-1]))
    for words in ("--runs runs --name mine --width column", "paper=lorta table=glue_base"):
        said = []
        for _ in range(2):
            assert main(["table", *words.split()]) == 0
            said.append(next(line for line in capsys.readouterr().err.splitlines() if line.startswith("written: ")))
        assert ["(in place of the ones of before)" in line for line in said] == [False, True]
    assert set(widths) == {"column"}


def test_collecting_over_another_suite_names_the_files_that_differ(checkout, capsys):
    """The records of before were gone without a word."""
    said = []
    for adapter in ("vera", "vera", "lora"):
        Store("runs").write(finished(adapter))
        assert main(["collect", "--name", "mine"]) == 0
        said.append([line for line in capsys.readouterr().err.splitlines() if "in place of" in line])
    assert said == [[], [], ["in place of the ones of before: results/records/mine.jsonl"]]


def test_a_named_suite_is_collected_to_be_committed(checkout, capsys):
    assert main(["collect", "--name", "mine"]) == 0
    assert "mine.jsonl" in (checkout / "results" / "records" / "SHA256SUMS").read_text()


def test_stale_is_explained(tmp_path, capsys):
    Store(tmp_path / "runs").write(unfinished("running"))
    assert main(["status", "--runs", str(tmp_path / "runs")]) == 0
    stale = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stale")]
    assert "its process is gone" in stale[0]
    assert "begun and not finished, or finished with other rows" in stale[1] and "runs it again" in stale[1]


def test_after_a_corrected_row_the_runs_to_remove_are_named():
    old, new = finished("lora"), finished("vera")
    assert new.task is not None
    splits = {name: Split(rows=split.rows, fingerprint="corrected") for name, split in new.task.splits.items()}
    new = replace(new, task=replace(new.task, splits=splits), created_at="2026-02-01T00:00:00Z")
    with pytest.raises(ValueError) as refused:
        summarise([new, old])
    assert f"remove the runs of the older rows (lorta rm id={old.run_id})" in str(refused.value)
