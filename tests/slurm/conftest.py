"""A real Slurm on this machine, or a skip with the reason, which the summary repeats in full."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "dev_slurm.sh"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The environment of commands that are to meet a cluster of this machine's own, which ends with the session."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} missing): scripts/dev_slurm.sh install, as root")
    folder = tmp_path_factory.mktemp("cluster")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True)
    if started.returncode:
        subprocess.run([SCRIPT, "stop", folder], capture_output=True)
        pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
    yield os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path, "HF_HUB_OFFLINE": "1"}
    subprocess.run([SCRIPT, "stop", folder], check=True)
