"""Run PEFT's own test files over the tuners of this project that PEFT does not ship.

python scripts/peft_tests.py                   # every test, every tuner
python scripts/peft_tests.py --part 16         # one of 16 pairs of a test and a tuner, on one model; always the same
python scripts/peft_tests.py --fetch           # download only
python scripts/peft_tests.py -k lorta -x       # other arguments are pytest's

The files are those of the source package of the installed PEFT, which is downloaded once into build/ and not copied.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import peft

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / f"peft-{peft.__version__}-tests"
FILES = ("decoder_models", "encoder_decoder_models", "seq_classifier", "feature_extraction_models")


def fetch() -> None:
    """Download PEFT's source package and lay out its tests, and the tiny models that they load, in FOLDER."""
    if (FOLDER / "ready").exists():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as downloads:
        package = f"peft=={peft.__version__}"
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "peft", "--dest", downloads]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        (archive,) = Path(downloads).glob("peft-*.tar.gz")
        with tarfile.open(archive) as source:
            source.extractall(downloads, filter="data")
        shutil.copytree(Path(downloads) / archive.name.removesuffix(".tar.gz") / "tests", FOLDER / "peft_tests")
    (FOLDER / "peft_tests" / "__init__.py").touch()  # the files import one another as a package's
    code = "import sys, pathlib; from tests.peft_suite.models import write; write(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, FOLDER], check=True, cwd=ROOT)
    (FOLDER / "ready").touch()


def run(part: int, others: list[str]) -> int:
    """Run a part of the tests and return pytest's exit status."""
    plugin = ["-p", "tests.peft_suite.plugin", "--part", str(part), "-c", os.devnull, "--rootdir", str(FOLDER)]
    files = [f"peft_tests/test_{name}.py" for name in FILES]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{FOLDER}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", *plugin, "-q", "-W", "ignore", *others, *files]
    return subprocess.run(command, cwd=FOLDER, env=environment, check=False).returncode


def main() -> int:
    """Fetch what is missing, then run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, default=1, help="of so many pairs of a test and a tuner, take one")
    parser.add_argument("--fetch", action="store_true", help="download only")
    arguments, others = parser.parse_known_args()
    fetch()
    return 0 if arguments.fetch else run(arguments.part, others)


if __name__ == "__main__":
    sys.exit(main())
