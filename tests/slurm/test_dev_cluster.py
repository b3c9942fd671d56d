"""The cluster for tests and trials leaves nothing behind."""

import getpass
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.slurm.conftest import SCRIPT


def processes_of(configuration):
    """Those that were started with a cluster's configuration, but for the ones that have ended and wait for init."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")  # slurmstepd's begin with zeros
            if f"SLURM_CONF={configuration}".encode() in variables and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found


@pytest.fixture
def another(cluster, tmp_path):
    """The environment of commands that are to meet a second cluster, whose folder is `tmp_path`."""
    subprocess.run([SCRIPT, "start", tmp_path], check=True, stdout=subprocess.DEVNULL, env=cluster)
    yield cluster | {"SLURM_CONF": f"{tmp_path}/slurm.conf"}
    subprocess.run([SCRIPT, "stop", tmp_path], capture_output=True, env=cluster)  # if the test has not


def test_no_job_outlives_a_cluster_that_is_stopped(another, tmp_path):
    stubborn = ["sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 600"]
    subprocess.run(stubborn, check=True, stdout=subprocess.DEVNULL, env=another)
    deadline = time.monotonic() + 60
    while "sleep" not in processes_of(another["SLURM_CONF"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {"slurmstepd", "sleep"} <= set(processes_of(another["SLURM_CONF"]))
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True, env=another)
    subprocess.run([SCRIPT, "stop", tmp_path], check=True, env=another)
    time.sleep(1)
    assert processes_of(another["SLURM_CONF"]) == []
