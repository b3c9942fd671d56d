import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorta.records.store import Store, export, read_export, write_atomically
from tests.example_records import finished, unfinished


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def test_written_record_is_read_back(store):
    record = finished()
    store.write(record)
    assert store.read(record.run_id) == record


def test_run_without_a_record_reads_as_none(store):
    assert store.read("0" * 12) is None


def test_last_write_wins_and_leaves_one_file(store):
    record = finished()
    store.write(unfinished("running"))
    store.write(record)
    assert store.read(record.run_id) == record
    assert [path.name for path in store.folder(record.run_id).iterdir()] == ["record.json"]


def test_record_is_readable_by_the_group(store):
    assert store.write(finished()).stat().st_mode & 0o777 == 0o644


def test_a_runs_adapter_is_readable_as_its_record_is(store):
    """safetensors makes its files readable to their owner alone."""
    saved = store.folder(finished().run_id) / "adapter" / "adapter_model.safetensors"
    saved.parent.mkdir(parents=True)
    saved.touch(mode=0o600)
    store.finish(finished(), {})
    assert saved.stat().st_mode & 0o777 == 0o644


def test_only_a_success_is_finished(store):
    record = finished()
    answers = []
    for state in (unfinished("running"), unfinished("failed"), unfinished("skipped"), record):
        store.write(state)
        answers.append(store.finished(record.run_id))
    assert answers == [False, False, False, True]


def test_torn_record_is_not_finished(store):
    path = store.write(finished())
    path.write_text(path.read_text()[:100])
    assert not store.finished(path.parent.name)


def test_record_that_cannot_be_written_leaves_the_previous_one(store):
    record = finished()
    store.write(record)
    with pytest.raises(ValueError, match="must be finite"):
        store.write(replace(record, config={"rate": float("inf")}))
    assert store.read(record.run_id) == record


def test_records_leave_out_what_is_torn_or_foreign_and_say_so(store):
    good, torn, moved = (finished(seed=seed) for seed in range(3))
    store.write(good)
    store.write(torn).write_text("{")
    store.write(moved).parent.rename(store.folder("0" * 12))
    (store.root / "notes" / "deep").mkdir(parents=True)
    (store.root / "notes" / "record.json").write_text("{}")
    with pytest.warns(UserWarning, match="no record") as caught:
        assert store.records() == [good]
    text = str(caught[0].message)
    assert all(name in text for name in (torn.run_id, f"holds the record of run {moved.run_id}", "notes"))


def test_records_come_in_the_order_of_their_signatures(store):
    for seed in range(8):
        store.write(finished(seed=seed))
    signatures = [record.run_id for record in store.records()]
    assert len(signatures) == 8
    assert signatures == sorted(signatures)


@pytest.mark.parametrize("name", ["..", "../../etc", "ABCDEFABCDEF", "0" * 11])
def test_folder_of_what_is_no_signature_is_refused(store, name):
    with pytest.raises(ValueError, match="12 hex digits"):
        store.folder(name)


def test_rows_are_read_back_and_carry_the_hash_of_their_bytes(store):
    rows = [{"id": 0, "label": 1, "text": "line\u2028separator\nand newline"}, {"id": 1, "label": 0, "text": ""}]
    file = store.write_rows("0" * 12, "predictions.jsonl", rows)
    content = (store.folder("0" * 12) / "predictions.jsonl").read_bytes()
    assert (file.sha256, file.n) == (hashlib.sha256(content).hexdigest(), 2)
    assert store.read_rows("0" * 12, file) == rows


def test_nan_in_rows_becomes_null_and_is_named(store):
    file = store.write_rows(
        "0" * 12, "history.jsonl", [{"loss": float("nan"), "logits": [1.0, float("inf")], "step": 1}]
    )
    assert store.read_rows("0" * 12, file) == [
        {"loss": None, "logits": [1.0, None], "step": 1, "non_finite": ["loss", "logits"]}
    ]


def test_changed_rows_are_refused(store):
    file = store.write_rows("0" * 12, "predictions.jsonl", [{"id": 0}])
    (store.folder("0" * 12) / "predictions.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="must have sha256"):
        store.read_rows("0" * 12, file)


def test_export_is_the_same_for_any_order_of_records(tmp_path):
    records = [finished(seed=seed) for seed in range(4)]
    export(records, tmp_path / "a.jsonl")
    export(records[::-1], tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert sorted(read_export(tmp_path / "a.jsonl"), key=lambda record: record.seed) == records


def test_bad_line_of_an_export_is_named(tmp_path):
    export([finished()], tmp_path / "a.jsonl")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is not a record"):
        read_export(tmp_path / "a.jsonl")


def test_killed_writer_leaves_a_whole_file(tmp_path):
    """A child rewrites one file with ever longer contents and is killed in the middle of it."""
    target = tmp_path / "record.json"
    write_atomically(target, json.dumps([0]))
    code = (
        "import itertools, json, pathlib, sys\n"
        "from lorta.records.store import write_atomically\n"
        "for size in itertools.count(1):\n"
        "    write_atomically(pathlib.Path(sys.argv[1]), json.dumps(list(range(2000 * size))))\n"
        "    print(size, flush=True)\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert child.stdout is not None
    for _ in range(5):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = json.loads(target.read_text())
    assert len(found) >= 10_000
    assert found == list(range(len(found)))


def test_a_compressed_export_reads_back_and_has_the_same_bytes_every_time(tmp_path):
    records = [finished()]
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        export(records, tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert read_export(tmp_path / "a.jsonl.gz") == records


@pytest.mark.parametrize("damage", ["a file for the folder", "a folder for the record", "nested too deep"])
def test_one_damaged_run_folder_is_left_out_with_a_line(store, damage):
    """It stopped every table and every sweep over the store."""
    store.write(finished())
    folder = store.root / ("0" * 12)
    if damage == "a file for the folder":
        folder.write_text("")
    elif damage == "a folder for the record":
        (folder / "record.json").mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / "record.json").write_text("[" * 200_000)
    with pytest.warns(UserWarning, match=f"left out what is no record:\n  {folder}"):
        assert store.records() == [finished()]
    assert store.last(folder.name) is None
