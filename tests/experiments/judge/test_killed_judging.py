"""A judging process that is killed in the middle, and given again: nothing that was answered is asked twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.experiments.judge.endpoint import PlayedEndpoint, completion
from tests.experiments.judge.test_judging import PROMPTS

ROOT = Path(__file__).parents[3]
COUNT = 12  # questions of two turns
ANSWERED = 9  # requests answered before the kill


@pytest.fixture
def data(tmp_path) -> Path:
    questions = [{"question_id": n, "category": "stem", "turns": [f"first {n}", f"second {n}"]} for n in range(COUNT)]
    answers = [{"question_id": n, "choices": [{"turns": [f"one {n}", f"two {n}"]}]} for n in range(COUNT)]
    prompts = [{"name": name, **prompt} for name, prompt in PROMPTS.items()]
    for name, rows in (("question", questions), ("answers", answers), ("judge_prompts", prompts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path


def start(data: Path, endpoint: PlayedEndpoint, workers: int) -> subprocess.Popen:
    judge = ["judge=openai", f"judge.base_url={endpoint.base_url}", "judge.model=judge", f"judge.workers={workers}"]
    command = [sys.executable, "scripts/judge.py", "grade", str(data / "answers.jsonl"), "--data", str(data), *judge]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the judging process did not get there"
        time.sleep(0.02)


def test_a_killed_judging_asks_only_what_was_not_answered(data):
    workers = 3
    grades, hold, first_life = data / "answers.grades.jsonl", threading.Event(), set()

    def play(text, before):
        if not hold.is_set() and len(endpoint.asked) > ANSWERED:
            hold.wait(60)  # no answer before the process is dead
        return completion(f"[[{1 + len(text) % 10}]]")

    with PlayedEndpoint(play) as endpoint:
        process = start(data, endpoint, workers)
        wait_for(lambda: len(endpoint.asked) >= ANSWERED + workers and grades.exists())
        wait_for(lambda: grades.read_bytes().count(b"\n") == ANSWERED)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        first_life = set(endpoint.asked)
        hold.set()
        with grades.open("ab") as stream:
            stream.write(b'{"key": "half a li')  # as if the kill had met a write
        said, _ = start(data, endpoint, workers).communicate(timeout=60)
        assert f"24 requests: {ANSWERED} answered before, {24 - ANSWERED} to ask" in said
        twice = {text for text, times in endpoint.asked.items() if times > 1}
        assert len(first_life) == ANSWERED + workers
        assert len(twice) == workers  # those in flight when it died, which nobody answered
        assert max(endpoint.asked.values()) == 2
        rows = [json.loads(line) for line in grades.read_text().splitlines()]
        assert len(rows) == len({row["key"] for row in rows}) == 24
        before = endpoint.asked.total()
        again, _ = start(data, endpoint, workers).communicate(timeout=60)
        assert endpoint.asked.total() == before and "24 answered before, 0 to ask" in again
