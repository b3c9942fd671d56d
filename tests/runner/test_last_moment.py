"""A request to leave that comes when a run's work is done keeps the work; one that comes between is recorded."""

import os
import signal

import pytest

from lorta.records.store import Store
from lorta.runner import execute as steps
from lorta.runner.attempt import attempt
from lorta.system.preemption import Preempted
from tests.faults.sweeps import plan


@pytest.fixture
def spec(tmp_path):
    (one,) = plan(tmp_path / "a", "adapter=head_only")
    return one


def on_disk(spec):
    return Store(spec.settings.runtime.runs).last(spec.run_id)


def test_a_signal_while_the_record_is_written_loses_nothing(spec, monkeypatch):
    """The record stayed `running`, and the run was done again."""
    finish = Store.finish

    def asked_to_leave(store, record, rows, **given):
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(store, record, rows, **given)

    monkeypatch.setattr(Store, "finish", asked_to_leave)
    record = attempt(spec, 0)
    assert record.status == "success"
    assert on_disk(spec) == record


def test_a_signal_between_two_steps_is_recorded_as_a_preemption(spec, monkeypatch):
    def leave(*_: object) -> None:
        raise Preempted

    monkeypatch.setattr(steps, "_try", leave)
    record = attempt(spec, 0)
    assert (record.status, record.failure.kind) == ("preempted", "preempted")
    assert on_disk(spec) == record
