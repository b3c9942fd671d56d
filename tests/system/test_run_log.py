"""runs/ID/log.txt: what a run says is there at once, stays small, and never stops the run."""

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from lorta.system import run_log
from lorta.system.run_log import LOG_NAME, MOST_BYTES, RUN
from lorta.training.callbacks import LINES, CountingCollator, Watch


def lines(folder) -> list[str]:
    return [line[len("2026-01-01 00:00:00 ") :] for line in (folder / LOG_NAME).read_text().splitlines()]


def test_lines_warnings_and_library_logs_are_there_while_the_run_works(tmp_path, capfd):
    with pytest.warns(UserWarning), run_log.run_log(tmp_path / "run"):
        RUN.info("train begins")
        warnings.warn("a rank is large", UserWarning, stacklevel=1)
        logging.getLogger("peft.tuners").warning("merging adapters")
        logging.getLogger("peft.tuners").info("not worth a line")
        expected = ["train begins", "warning: UserWarning: a rank is large", "warning: peft.tuners: merging adapters"]
        assert lines(tmp_path / "run") == expected
    RUN.info("of no run")
    logging.getLogger("peft.tuners").warning("of no run")
    assert len(lines(tmp_path / "run")) == 3
    assert "train begins" not in "".join(capfd.readouterr())


def test_transformers_tells_the_log_what_it_does_not_tell_the_terminal(tmp_path, capfd):
    from lorta.system.quiet import quiet_transformers

    with run_log.run_log(tmp_path):
        quiet_transformers()
        logging.getLogger("transformers.modeling_utils").warning("the head is new")
    assert lines(tmp_path) == ["warning: transformers.modeling_utils: the head is new"]
    assert capfd.readouterr().err == ""


def test_another_attempt_adds_to_the_log(tmp_path):
    for number in (1, 2):
        with run_log.run_log(tmp_path):
            RUN.info("attempt %d", number)
    run_log.add_line(tmp_path, "the process is gone")
    assert lines(tmp_path) == ["attempt 1", "attempt 2", "the process is gone"]


def test_a_library_that_never_stops_leaves_room_for_the_run(tmp_path):
    with run_log.run_log(tmp_path):
        for number in range(2000):
            logging.getLogger("peft").warning("%d %s", number, "x" * 200)
            logging.getLogger("peft").warning("%d %s", number, "x" * 200)  # equal lines are one
        RUN.info("success")
    assert (tmp_path / LOG_NAME).stat().st_size < MOST_BYTES + 1000
    said = lines(tmp_path)
    assert said[-2:] == ["the log is full: no more lines of libraries", "success"]
    assert len(set(said)) == len(said)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "run").write_text("a file in place of the folder")
    with run_log.run_log(tmp_path / "run"):
        RUN.info("goes nowhere")
    run_log.add_line(tmp_path / "run", "goes nowhere")


def test_progress_is_a_line_for_each_twentieth_of_a_run(tmp_path):
    state: Any = SimpleNamespace(log_history=[], global_step=0, max_steps=10_000)
    watch = Watch(tmp_path, CountingCollator(list))
    with run_log.run_log(tmp_path):
        for step in range(10, 10_001, 10):
            state.global_step = step
            state.log_history.append({"loss": 0.5, "learning_rate": 1e-4, "step": step})
            watch.on_log(None, state, None, logs=state.log_history[-1])
    assert lines(tmp_path)[0] == "step 10 of 10000, loss 0.5, learning rate 0.0001"
    assert len(lines(tmp_path)) == LINES + 1
