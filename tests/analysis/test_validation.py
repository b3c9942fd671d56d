from dataclasses import replace
from pathlib import Path

import pytest

from lorta.analysis.load import read_source
from lorta.analysis.summary import summarise
from lorta.analysis.validation import refuse_untrusted
from lorta.cli.table import declare, run
from lorta.records.store import Store, export, read_export
from lorta.reporting.tables import to_markdown
from tests.example_records import finished, sweep, unfinished, with_section


def test_whole_clean_records_of_one_protocol_are_trusted():
    refuse_untrusted([*sweep(), unfinished("failed", adapter="vera")], "x.jsonl")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (replace(finished(), config={**finished().config, "task": "another"}), "but its config hashes to"),
        (replace(finished(), config_hash="0" * 64), "says config_hash 000000000000..., but its config"),
        (replace(finished(), run_id="0" * 12), "but its config hashes to"),
        (replace(finished(), cell_id="0" * 12), "has a seed or cell_id that its config does not have"),
        (replace(finished(), seed=7), "has a seed or cell_id that its config does not have"),
        (with_section(finished(), "code", git_dirty=True), "code with uncommitted changes"),
        (replace(finished(), reasons={"code.git_sha": "unknown code: a ZIP"}), "comes from unknown code: a ZIP"),
    ],
)
def test_changed_and_dirty_records_are_refused_by_name(record, problem):
    with pytest.raises(ValueError, match=f"^x.jsonl: record {record.run_id} .*{problem}"):
        refuse_untrusted([record, finished("vera")], "x.jsonl")


def test_mixed_protocols_are_refused_with_their_numbers():
    records = [finished(), with_section(finished("vera"), "task", protocol=2), finished(task="cola")]
    with pytest.raises(ValueError, match="the records of glue/rte have the protocols 1 and 2"):
        refuse_untrusted(records, "x.jsonl")


def test_many_problems_are_counted_not_listed():
    records = [with_section(record, "code", git_dirty=True) for record in sweep()]
    with pytest.raises(ValueError, match=f"and {len(records) - 5} more"):
        refuse_untrusted(records, "x.jsonl")


def test_every_committed_record_is_trusted():
    for file in sorted((Path(__file__).parents[2] / "results" / "records").glob("*.jsonl*")):
        refuse_untrusted(read_export(file), file.name)


@pytest.mark.parametrize("words", [[], ["paper=lorta", "table=glue_base"]])
def test_tables_of_exported_records_refuse_what_is_not_trusted(tmp_path, words):
    import argparse

    export([with_section(finished(), "code", git_dirty=True)], tmp_path / "x.jsonl")
    parser = argparse.ArgumentParser()
    declare(parser)
    with pytest.raises(ValueError, match="uncommitted changes"):
        run(parser.parse_args([*words, "--records", str(tmp_path / "x.jsonl"), "--results", str(tmp_path)]))
    assert not (tmp_path / "reports").exists()


def test_a_table_for_oneself_takes_uncommitted_runs_and_says_so(tmp_path):
    import argparse

    dirty = with_section(finished(), "code", git_dirty=True, diff_sha256="ab" * 32)
    export([dirty, finished("vera")], tmp_path / "x.jsonl")
    parser = argparse.ArgumentParser()
    declare(parser)
    words = ["--records", str(tmp_path / "x.jsonl"), "--results", str(tmp_path), "--uncommitted"]
    run(parser.parse_args(words))
    report = (tmp_path / "reports" / "x.md").read_text()
    assert "1 of 2 runs had uncommitted changes (SHA-256 of the difference: abababababab)." in report
    with pytest.raises(ValueError, match=r"runtime\.force=true, or make a table for yourself with --uncommitted"):
        refuse_untrusted([dirty], "x.jsonl")


def test_a_record_without_its_own_metric_is_listed_and_the_others_are_shown(tmp_path):
    bad = with_section(finished("vera"), "task", metric_primary="auc")
    store = Store(tmp_path)
    for record in (bad, finished("lora")):
        store.write(record)
    found = read_source(tmp_path, None).records
    (table,) = summarise(found)
    assert [row.adapter for row in table.rows] == ["lora"]
    assert "the record has no auc, its primary metric" in to_markdown([table], found)
