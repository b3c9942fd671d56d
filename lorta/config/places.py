"""Where the files lie that come with the package: at the top of a checkout, and inside the package in a wheel.

A wheel holds `conf`, `results/published`, `requirements.lock`, `baselines` and `experiments` in `lorta/_shipped`
(setup.py), so that it puts no other name beside `lorta` into site-packages. Importing `lorta.config` makes the two
packages importable under their own names, which YAML files and records use.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "_shipped"
CHECKOUT = None if SHIPPED.is_dir() else PACKAGE.parent
ROOT = CHECKOUT or SHIPPED
CONF = ROOT / "conf"
RESULTS = ROOT / "results"


def make_importable() -> None:
    """Let `baselines` and `experiments` be imported: last on the path, where they hide nobody's packages."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
