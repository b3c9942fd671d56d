"""The real command line on the embedded default, at toy size."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorta.records.store import Store
from tests.processor_time import seconds_of_children

ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def todo(output: str) -> int:
    """How many runs the command found to do."""
    found = re.search(r"runs: (\d+) to do", output)
    assert found, output
    return int(found.group(1))


def wandb_records(content: bytes) -> Iterator[Any]:
    """The records of an offline run's file: LevelDB's log format behind a header of seven bytes, in 32 KiB blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert content[:4] == b":W&B"
    position, data = 7, b""
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(data)
            yield record
            data = b""


SOME = ("full", "lora", "loretta_rep", "lorta", "prompt_tuning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_every_adapter_runs(folder):
    """And some of them regression: `make smoke` runs all of them on all GLUE tasks."""
    words = ("task=glue/cola", "trainer=smoke", "runtime.name=smoke", "runtime.runs_per_process=8")
    done = run(folder, "-m", "adapter=glob(*)", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    some = run(folder, "-m", f"adapter={','.join(SOME)}", "task=glue/stsb", "trainer=smoke")
    assert some.returncode == 0, some.stdout + some.stderr
    records = Store(folder / "runs").records()
    adapters = {file.stem for file in (ROOT / "conf/adapter").glob("*.yaml")}
    expected = {(adapter, "glue/cola") for adapter in adapters} | {(adapter, "glue/stsb") for adapter in SOME}
    assert {(record.adapter.name, record.task.name) for record in records} == expected
    assert {record.status for record in records} == {"success"}
    assert "\nlorta r=8" in done.stdout
    for ending in ("md", "csv", "tex"):
        assert (folder / f"results/local/reports/smoke.{ending}").stat().st_size > 0
    assert (folder / "results/local/figures/smoke.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_runs_nothing_in_under_three_seconds(folder):
    words = ("-m", "adapter=lora,lorta", "task=glue/cola", "trainer=smoke")
    assert todo(run(folder, *words).stdout) == 2
    begun = seconds_of_children()
    again = run(folder, *words)
    assert seconds_of_children() - begun < 3.0
    assert todo(again.stdout) == 0
    assert "\nlorta r=" in again.stdout


def test_another_rank_runs_only_that_rank(folder):
    words = ("-m", "adapter=lora,lorta", "task=glue/cola", "trainer=smoke")
    run(folder, *words, "rank=2")
    assert todo(run(folder, *words, "rank=2,4").stdout) == 2


def test_one_run_prints_one_line_of_result(folder):
    done = run(folder, "adapter=lorta", "rank=2", "task=glue/cola", "trainer=smoke")
    assert done.returncode == 0
    assert re.search(r"lorta r=2 glue/cola seed 0: matthews_correlation .* adapter and .* head parameters", done.stdout)


def test_a_run_repeated_in_another_process_gives_the_same_predictions(folder):
    words = ("adapter=lorta", "rank=2", "task=glue/cola", "trainer=smoke")
    run(folder, *words)
    store = Store(folder / "runs")
    before = {record.run_id: record.predictions_file.sha256 for record in store.records()}
    run(folder, *words, "runtime.force=true", "runtime.workers=0")
    assert {record.run_id: record.predictions_file.sha256 for record in store.records()} == before


def test_the_best_epoch_is_scored_when_asked_and_the_record_says_so(folder):
    words = ("adapter=lora", "task=glue/cola", "trainer.selection=best", "trainer.num_train_epochs=2")
    done = run(folder, *words, "data.max_train_samples=64", "data.max_eval_samples=64")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [record for record in Store(folder / "runs").records() if record.protocol.selection == "best"]
    assert "was the best" in record.reasons["protocol.selection"]


def test_hydra_shows_the_composed_configuration(folder):
    shown = run(folder, "--cfg", "job", "adapter=vera", "rank=16")
    assert "name: vera" in shown.stdout
    assert "rank: 16" in shown.stdout


def test_a_wandb_offline_run_holds_what_the_record_says(folder):
    done = run(folder, "adapter=head_only", "task=glue/rte", "trainer=smoke", "tracking=wandb_offline")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [record for record in Store(folder / "runs").records() if record.tracking is not None]
    (file,) = (folder / "runs" / record.run_id).glob(f"wandb/offline-run-*/run-{record.run_id}.wandb")
    summary = {}
    for entry in wandb_records(file.read_bytes()):
        summary |= {item.key or ".".join(item.nested_key): item.value_json for item in entry.summary.update}
    score = record.metrics["evaluation"]["accuracy"].value
    assert record.tracking.wandb_id == record.run_id
    assert float(summary["evaluation/accuracy"]) == pytest.approx(score)
