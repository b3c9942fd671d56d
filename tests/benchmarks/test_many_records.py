"""The measured store is one that status and tables read: as many finished runs as were asked for, no two alike."""

import itertools

from benchmarks.many_records import copies, fill
from lorta.records.store import Store
from lorta.status.states import store_states

COUNT = 12


def test_a_store_has_so_many_finished_runs(tmp_path):
    fill(tmp_path, COUNT)
    assert [state.state for state in store_states(tmp_path)] == ["done"] * COUNT
    records = Store(tmp_path).records()
    assert len({record.run_id for record in records}) == COUNT
    assert all(record.primary_score is not None for record in records)


def test_copies_have_other_names_and_seeds():
    records = list(itertools.islice(copies(), 2_000))
    cells = {(record["adapter"]["name"], record["adapter"]["rank"], record["task"]["name"]) for record in records}
    runs = {record["run_id"] for record in records}
    assert len(runs) == 2_000
    assert len(cells) < len(runs)
