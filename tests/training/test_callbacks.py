"""What a person can follow while a run trains: its losses, written as they are logged."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lorta.records.store import PROGRESS_NAME
from lorta.training.callbacks import HISTORY_NAME, CountingCollator, TrainingDiverged, Watch


def test_losses_are_in_the_history_as_soon_as_they_are_logged(tmp_path):
    state: Any = SimpleNamespace(
        log_history=[{"loss": 2.0, "learning_rate": 0.1, "step": 1}], global_step=1, max_steps=3
    )
    watch = Watch(tmp_path, CountingCollator(list))
    (tmp_path / HISTORY_NAME).write_text('{"loss": 9.0, "step": 99}\n')  # of an earlier attempt
    watch.on_train_begin(None, state, None)  # after a checkpoint, with a row
    for step in (2, 3):
        state.global_step = step
        state.log_history.append({"loss": 2.0 / step, "learning_rate": 0.1, "step": step})
        watch.on_log(None, state, None, logs=state.log_history[-1])
        rows = [json.loads(line) for line in (tmp_path / HISTORY_NAME).read_text().splitlines()]
        assert rows == state.log_history
    watch.on_log(None, state, None, logs={"train_runtime": 3.0})
    assert len((tmp_path / HISTORY_NAME).read_text().splitlines()) == 3


def test_progress_has_the_loss_and_the_rate_that_were_logged_last(tmp_path):
    state: Any = SimpleNamespace(log_history=[], global_step=1, max_steps=3)
    watch = Watch(tmp_path, CountingCollator(list))
    watch.on_step_end(None, state, None)
    assert json.loads((tmp_path / PROGRESS_NAME).read_text()) == {"step": 1, "max_steps": 3}
    row = {"loss": 2.0, "learning_rate": 0.1, "step": 1}
    state.log_history.append(row)
    watch.on_log(None, state, None, logs=row)
    watch._reported = 0.0  # long ago
    watch.on_step_end(None, state, None)
    assert json.loads((tmp_path / PROGRESS_NAME).read_text()) == {"max_steps": 3, **row}


def test_a_loss_that_is_no_number_is_not_in_it(tmp_path):
    state: Any = SimpleNamespace(log_history=[], global_step=1)
    watch = Watch(tmp_path, CountingCollator(list))
    watch.on_train_begin(None, state, None)
    with pytest.raises(TrainingDiverged):
        watch.on_log(None, state, None, logs={"loss": float("nan")})
    assert (tmp_path / HISTORY_NAME).read_text() == ""
