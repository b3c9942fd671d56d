"""The allocator of a sweep's workers: jemalloc where it is installed, the same numbers from any."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorta.system import allocator

ROOT = Path(__file__).parents[2]
SWEEP = """
import json
from lorta.launch import local as workers
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
plan = make_plan({words!r}, False, CONF)
(record,) = [record for record in workers.run_all(plan.specs, 1) if record]
files = [record.predictions_file.sha256, record.history_file.sha256]
print(json.dumps([record.status, record.environment.allocator, record.env_fingerprint, files]))
"""


@pytest.mark.skipif(allocator.installed() is None, reason="jemalloc is not installed (apt-get install libjemalloc2)")
def test_workers_use_jemalloc_where_it_is_installed_and_come_to_the_same_numbers(tmp_path):
    of_both = [swept(tmp_path / name, f"runtime.allocator={name}") for name in ("auto", "system")]
    (status, used, machine, files), (status_without, used_without, machine_without, files_without) = of_both
    assert (status, used) == ("success", "jemalloc")
    assert (status_without, used_without) == ("success", None)
    assert files == files_without
    assert machine != machine_without  # their timings are not comparable


FREED = """
from pathlib import Path
from lorta.system.allocator import give_back, in_use
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
kept = [bytearray(b"x" * 50_000) for _ in range(4000)]
full = resident()
del kept
give_back()
print(in_use(), full - resident() > 0.9 * 4000 * 50_000 / 4096)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("wanted", ["auto", "system"])
def test_freed_pages_go_back_to_the_system(wanted):
    """jemalloc keeps them for ten seconds, and the next run of a process reported them as its own."""
    with allocator.preferred(wanted):
        done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, cwd=ROOT)
    expected = "jemalloc" if wanted == "auto" and allocator.installed() else "None"
    assert done.stdout.split() == [expected, "True"]


@pytest.fixture
def untouched(monkeypatch):
    monkeypatch.setattr(allocator, "installed", lambda: "libjemalloc.so.2")
    monkeypatch.delenv(allocator.VARIABLE, raising=False)


@pytest.mark.usefixtures("untouched")
def test_only_processes_begun_within_the_block_get_it():
    with allocator.preferred("auto"):
        assert os.environ[allocator.VARIABLE] == "libjemalloc.so.2"
    assert allocator.VARIABLE not in os.environ
    with allocator.preferred("system"):
        assert allocator.VARIABLE not in os.environ


@pytest.mark.usefixtures("untouched")
def test_a_library_that_was_put_first_by_hand_stays(monkeypatch):
    monkeypatch.setenv(allocator.VARIABLE, "libtcmalloc_minimal.so.4")
    with allocator.preferred("auto"):
        assert os.environ[allocator.VARIABLE] == "libtcmalloc_minimal.so.4"
    assert os.environ[allocator.VARIABLE] == "libtcmalloc_minimal.so.4"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libraries have other names")
def test_the_library_of_a_conda_environment_comes_before_the_systems(tmp_path, monkeypatch):
    own = tmp_path / "lib" / allocator.FILE
    own.parent.mkdir()
    own.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert allocator.installed() == str(own)


def swept(folder, *overrides):
    """What a worker of a sweep with one run says of it."""
    places = [f"runtime.{name}={folder / name}" for name in ("runs", "cache", "results")]
    words = ["adapter=lora", "trainer=smoke", *places, *overrides]
    environment = {name: value for name, value in os.environ.items() if name != allocator.VARIABLE}
    command = [sys.executable, "-c", SWEEP.format(words=words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return json.loads(done.stdout)
