"""One holder a run: claims are exclusive, and those of the dead are recognised."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorta.records import locks as claims
from lorta.records.locks import holder, take

HOLD = "import sys, time; from pathlib import Path; from lorta.records.locks import take\n"
HOLD += "print(take(Path(sys.argv[1])) is not None, flush=True); time.sleep(60)"


@pytest.fixture
def another(tmp_path):
    """Another process that holds the claim on tmp_path."""
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def rewrite(folder: Path, **changes: object) -> None:
    """Change what the only claim says of its holder."""
    (path,) = folder.glob("claim-*")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_that_is_held_cannot_be_claimed(tmp_path, another):
    assert take(tmp_path) is None
    assert holder(tmp_path).pid == another.pid


def test_a_killed_holder_is_succeeded_at_once(tmp_path, another):
    another.send_signal(signal.SIGKILL)
    while take(tmp_path) is None:  # until the kernel has delivered it; a zombie counts as dead
        time.sleep(0.01)
    assert holder(tmp_path).pid == os.getpid()


def test_a_heartbeat_from_the_future_is_not_trusted(tmp_path, another):
    """Nobody could do the run until then."""
    rewrite(tmp_path, machine="elsewhere")
    tomorrow = time.time() + 86_400
    os.utime(tmp_path / "claim-0001", (tomorrow, tomorrow))
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None


def test_a_claim_of_an_earlier_version_is_read(tmp_path, another):
    (path,) = tmp_path.glob("claim-*")
    said = json.loads(path.read_text())
    del said["since"]
    path.write_text(json.dumps(said))
    assert str(holder(tmp_path)) == f"process {another.pid} on {said['host']}"


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path, another):
    rewrite(tmp_path, started="1")
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None


def test_a_holder_elsewhere_lives_while_its_heart_beats(tmp_path, another):
    rewrite(tmp_path, machine="another")
    assert take(tmp_path) is None
    (path,) = tmp_path.glob("claim-*")
    os.utime(path, (time.time() - claims.STALE_S - 1,) * 2)
    assert take(tmp_path) is not None


def test_a_claim_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    with take(tmp_path) as claim:
        os.utime(claim.path, (0, 0))
        until = time.monotonic() + 5
        while claim.path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert claim.path.stat().st_mtime > 0


def test_who_was_succeeded_knows_it(tmp_path):
    claim = take(tmp_path)
    assert not claim.lost()
    rewrite(tmp_path, started="1")
    successor = take(tmp_path)
    assert claim.lost()
    assert not successor.lost()


def test_released_claims_leave_nothing_behind(tmp_path):
    first = take(tmp_path)
    rewrite(tmp_path, started="1")
    with take(tmp_path) as claim:
        assert claim.path != first.path
    assert list(tmp_path.iterdir()) == []


def test_a_claim_cut_off_by_a_crash_is_judged_by_its_age(tmp_path):
    (tmp_path / "claim-0001").write_text("")
    assert take(tmp_path) is None
    os.utime(tmp_path / "claim-0001", (0, 0))
    assert take(tmp_path) is not None


def contend(folder: Path, start: object, results: object) -> None:
    start.wait()
    results.put(take(folder) is not None)
    time.sleep(0.2)  # alive until all have asked


@pytest.mark.parametrize("dead_before", [False, True])
def test_of_processes_that_ask_at_once_at_most_one_holds(tmp_path, dead_before):
    context = multiprocessing.get_context("fork")
    winners = []
    for turn in range(5):
        folder = tmp_path / str(turn)
        if dead_before:
            take(folder)
            rewrite(folder, started="1")
        start, results = context.Event(), context.Queue()
        processes = [context.Process(target=contend, args=(folder, start, results)) for _ in range(8)]
        for process in processes:
            process.start()
        start.set()
        won = [results.get(timeout=10) for _ in processes]
        for process in processes:
            process.join()
        winners.append(sum(won))
    assert max(winners) == 1  # 0 when two meet and both stand back


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_has_claims_too(tmp_path, monkeypatch, number):
    """Every run failed there with "Operation not permitted"."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims.os, "link", refuse)
    claim = take(tmp_path)
    assert claim is not None
    assert holder(tmp_path).pid == os.getpid()
    assert take(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["claim-0001"]
    claim.release()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_is_not_whole_yet_is_somebodys(tmp_path):
    (tmp_path / "claim-0001").touch()
    assert take(tmp_path) is None
