"""What a job's script does before Python starts."""

from pathlib import Path

import pytest

from lorta.config.launcher import SlurmSettings
from lorta.config.places import CONF
from lorta.launch import slurm
from lorta.planning.planner import make_plan


@pytest.mark.parametrize(
    ("checkout", "lines"),
    [
        (Path("/a folder"), ["export PYTHONPATH='/a folder'${PYTHONPATH:+:$PYTHONPATH}", "module load x"]),
        (None, ["module load x"]),  # installed: its folder, first on the path, would hide Python's own modules
    ],
)
def test_a_job_finds_a_checkout_and_leaves_the_path_of_an_installed_lorta_alone(checkout, lines, monkeypatch):
    monkeypatch.setattr(slurm, "CHECKOUT", checkout)
    plan = make_plan(["hydra/launcher=slurm", "hydra.launcher.setup=[module load x]", "task=glue/rte"], False, CONF)
    assert isinstance(plan.launcher, SlurmSettings)
    assert slurm._parameters(plan.specs, plan.launcher)["setup"] == lines
