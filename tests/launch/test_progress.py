"""The live table counts, knows what is at work, and tells the time left; a log gets plain lines."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lorta.config.places import CONF
from lorta.launch import progress
from lorta.launch.progress import AtWork, Sweep, clock, follow
from lorta.planning.planner import make_plan
from lorta.records.store import PROGRESS_NAME
from tests.cli.test_sweep import record_of


@pytest.fixture
def specs(tmp_path):
    words = ["adapter=lora,lorta", "rank=2,4", "task=glue/cola", "trainer=smoke", f"runtime.runs={tmp_path}"]
    return make_plan(words, True, CONF).specs


def at_step(folder: Path, step: int, steps: int, **logged: float) -> None:
    folder.mkdir()
    (folder / PROGRESS_NAME).write_text(json.dumps({"step": step, "max_steps": steps, **logged}))


def shown(sweep: Sweep, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(sweep.table())
    return console.file.getvalue()


def test_the_table_counts_what_is_done_running_failed_and_to_do(specs):
    sweep = Sweep(specs)
    sweep.add(record_of(specs[0], "success"))
    sweep.add(record_of(specs[1], "failed"))
    at_step(specs[2].folder, 3, 12)
    text = shown(sweep)
    assert "1 done, 1 running, 1 failed, 1 to do" in text
    assert "lorta r=2 glue/cola seed 0" in text
    assert "step 3 of 12" in text


def test_a_run_at_work_has_its_loss_and_rate_in_one_line_of_a_terminal(specs):
    at_step(specs[2].folder, 3, 12, loss=0.51234, learning_rate=0.001)
    lines = shown(Sweep(specs), 80).splitlines()
    (line,) = [line for line in lines if "lorta r=2" in line]
    assert line.rstrip().endswith("step 3 of 12, loss 0.512, rate 0.001") and max(map(len, lines)) <= 80


def test_the_time_left_follows_the_pace_so_far(specs, monkeypatch):
    now = iter([100.0, 160.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    sweep = Sweep(specs)
    sweep.records.append(record_of(specs[0], "success"))
    assert sweep.seconds_left({specs[1].signature: AtWork(6, 12)}) == pytest.approx(60 / 1.5 * 2.5)


def test_there_is_no_guess_before_anything_was_done(specs):
    assert Sweep(specs).seconds_left({}) is None


def test_a_log_gets_one_line_a_run_and_nothing_else(specs):
    console = Console(file=io.StringIO(), width=400)
    records = [record_of(spec, "failed") for spec in specs]
    assert follow(specs, [None, *records, None], console) == records
    lines = console.file.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "[1/4] lora r=2 glue/cola seed 0",
        "[2/4] lora r=4 glue/cola seed 0",
        "[3/4] lorta r=2 glue/cola seed 0",
        "[4/4] lorta r=4 glue/cola seed 0",
    ]


def test_swept_rates_are_told_apart_in_lines_and_in_the_table(tmp_path):
    words = ["adapter=lora", "task=glue/cola", "trainer=smoke", "trainer.learning_rate=0.1,0.2"]
    plan = make_plan([*words, f"runtime.runs={tmp_path}"], True, CONF)
    console = Console(file=io.StringIO(), width=400)
    follow(plan.specs, [record_of(spec, "failed") for spec in plan.specs], console)
    for spec, line, rate in zip(plan.specs, console.file.getvalue().splitlines(), ("0.1", "0.2"), strict=True):
        assert f"learning_rate={rate}: " in line
        at_step(spec.folder, 3, 12)
    assert all(f"learning_rate={rate}" in shown(Sweep(plan.specs)) for rate in ("0.1", "0.2"))


def test_a_terminal_sees_the_table_while_runs_are_at_work(specs):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    follow(specs, [None, record_of(specs[0], "success")], console)
    assert "0 done, 0 running, 0 failed, 4 to do" in console.file.getvalue()


def test_hours_minutes_and_seconds():
    assert clock(3 * 3600 + 62.4) == "3:01:02"
