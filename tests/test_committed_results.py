"""Committed reports are what their records give, and the README shows one of them."""

from pathlib import Path

import pytest

from lorta.harness.report import write_report
from lorta.harness.store import read_export
from scripts.make_readme import HEADLINE, headline

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "results" / "records").glob("*.jsonl*"))


def test_there_are_committed_records():
    assert HEADLINE in {file.name.split(".")[0] for file in SUITES}


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_report_regenerated_from_its_records_is_the_committed_one(file, tmp_path):
    suite = file.name.split(".")[0]
    write_report(read_export(file), suite, tmp_path, figure=False)
    for ending in ("md", "csv", "runs.csv", "tex"):
        name = f"reports/{suite}.{ending}"
        assert (tmp_path / name).read_bytes() == (ROOT / "results" / name).read_bytes()


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_committed_runs_come_from_a_clean_commit_and_name_no_place(file):
    for record in read_export(file):
        assert record.code.git_dirty is False, record.run_id
        assert not [word for word in record.overrides if word.startswith(("data.root", "runtime.", "model.path"))]


def test_the_readme_shows_the_headline_table():
    table = headline((ROOT / "results" / "reports" / f"{HEADLINE}.md").read_text())
    assert table in (ROOT / "README.md").read_text()
