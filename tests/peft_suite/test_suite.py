"""PEFT's own test files over our tuners: a part that is always the same; all of it by scripts/peft_tests.py."""

import subprocess
import sys
from pathlib import Path

import peft
import pytest

from tests.contract.tuners import external
from tests.peft_suite.not_applicable import NOT_APPLICABLE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "peft_tests.py"
PART = 16


@pytest.mark.slow
def test_a_part_of_pefts_tests_passes_for_all_tuners():
    if not (ROOT / "build" / f"peft-{peft.__version__}-tests" / "ready").exists():
        pytest.skip("PEFT's source package is not here: python scripts/peft_tests.py --fetch")
    command = [sys.executable, SCRIPT, "--part", str(PART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_what_does_not_apply_names_tuners_that_are_there_and_says_why():
    for test, tuners in NOT_APPLICABLE.items():
        assert test.startswith("test_")
        for tuner, sentence in tuners.items():
            assert tuner in external()
            assert len(sentence.split()) > 4
