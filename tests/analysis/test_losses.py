import gzip
from dataclasses import replace

import pytest

from lorta.analysis.losses import MOST_POINTS, from_store, losses_file, read_losses, thinned
from lorta.cli.main import main
from lorta.records.record import RunRecord
from lorta.records.store import Store, export
from tests.example_records import finished


def a_run(store: Store) -> RunRecord:
    rows = [{"step": 10, "loss": 0.75, "grad_norm": 1.0}, {"step": 20, "loss": 0.123456}]
    record = finished()
    record = replace(record, history_file=store.write_rows(record.run_id, "history.jsonl", rows))
    store.write(record)
    return record


def test_long_histories_keep_their_ends():
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 1001)]
    found = thinned(rows)
    assert len(found) == MOST_POINTS
    assert (found[0], found[-1]) == ((1, 1.0), (1000, 0.001))
    assert [step for step, _ in found] == sorted({step for step, _ in found})


def test_losses_that_are_no_numbers_are_left_out():
    rows = [{"step": 1, "loss": None}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 0.5}, {"epoch": 1}]
    assert thinned(rows) == [(3, 0.5)]


def test_collected_losses_are_those_of_the_store(tmp_path, capsys):
    store = Store(tmp_path / "runs")
    record = a_run(store)
    assert main(["collect", "--runs", str(store.root), "--name", "x", "--results", str(tmp_path)]) == 0
    assert "1 with losses" in capsys.readouterr().out
    found = read_losses(losses_file(tmp_path, "x"), [record])
    assert found == from_store([record], store)
    assert found[record.run_id].losses == (0.75, 0.1235)


def test_losses_are_added_to_a_suite_that_was_collected_without(tmp_path):
    store = Store(tmp_path / "runs")
    record = a_run(store)
    export([record], tmp_path / "records" / "x.jsonl")
    assert main(["collect", "--runs", str(store.root), "--records", str(tmp_path / "records" / "x.jsonl")]) == 0
    assert list(read_losses(losses_file(tmp_path, "x"), [record])) == [record.run_id]


def test_a_history_that_changed_after_the_run_is_refused(tmp_path):
    store = Store(tmp_path)
    record = a_run(store)
    (store.folder(record.run_id) / "history.jsonl").write_text('{"step": 1, "loss": 0.1}\n')
    with pytest.raises(ValueError, match="must have sha256"):
        from_store([record], store)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"run_id": "a"}', "it needs exactly run_id"),
        ('{"run_id": "a", "history_sha256": "x", "steps": [1, 2], "losses": [0.5]}', "2 steps and 1 losses"),
        ('{"run_id": "RUN", "history_sha256": "x", "steps": [1], "losses": [0.5]}', "has another history"),
    ],
)
def test_losses_that_fit_no_record_are_refused_with_their_line(tmp_path, line, problem):
    record = a_run(Store(tmp_path / "runs"))
    (tmp_path / "x.gz").write_bytes(gzip.compress(line.replace("RUN", record.run_id).encode()))
    with pytest.raises(ValueError, match=f"line 1: .*{problem}"):
        read_losses(tmp_path / "x.gz", [record])
