"""A record of a later version of this package is never overwritten, and does not count as missing."""

import json

import pytest
from rich.console import Console

from lorta.cli.main import main as lorta
from lorta.cli.run import run_plan
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.record import LATER_SCHEMA, SCHEMA_VERSION, LaterSchema, RunRecord
from lorta.records.store import Store
from tests.example_records import finished


def as_of_later(path):
    """Rewrite a record as a later version would; return what is in the file."""
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"schema_version": SCHEMA_VERSION + 1, "a_later_field": 1}))
    return path.read_text()


def test_a_store_leaves_it_as_it_is(tmp_path):
    store, record = Store(tmp_path), finished()
    path = store.write(record)
    assert store.later(record.run_id) is None
    text = as_of_later(path)
    assert LATER_SCHEMA in (store.later(record.run_id) or "")
    with pytest.raises(LaterSchema, match=f"schema {SCHEMA_VERSION + 1}, written by a later version of lorta"):
        store.write(record)
    assert path.read_text() == text
    assert store.later("0" * 12) is None


def test_an_earlier_schema_is_no_later_one():
    with pytest.raises(ValueError, match="read it with the version of lorta that wrote it") as error:
        RunRecord.from_json('{"schema_version": 0}', "file")
    assert not isinstance(error.value, LaterSchema)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("status", ["success", "failed"])
def test_a_sweep_says_so_and_trains_nothing(tmp_path, status, force, capsys):
    words = ["task=glue/sst2", "trainer=smoke", f"runtime.runs={tmp_path}", f"runtime.force={force}"]
    plan = make_plan(words, False, CONF)
    (spec,) = plan.specs
    spec.folder.mkdir(parents=True)
    path = spec.folder / "record.json"
    path.write_text(json.dumps({"run_id": spec.run_id, "status": status, "config": spec.config}))
    text = as_of_later(path)
    assert run_plan(plan, Console(soft_wrap=True), parallel=False) == 1
    said = capsys.readouterr().out
    assert "1 run: 0 to do, 0 done" in said and LATER_SCHEMA in said
    assert path.read_text() == text
    assert lorta(["status", *words]) == 0
    assert LATER_SCHEMA in capsys.readouterr().out
