"""Puts into a wheel what a checkout has beside `lorta`: everything else is said in pyproject.toml.

setuptools cannot place a folder of data, or the packages below a folder, under another package by a rule, only one by
one. So the build copies them. An editable installation reads the checkout itself and gets no copies.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SHIPPED = "lorta/_shipped"  # lorta/config/places.py looks there
FOLDERS = ("baselines", "conf", "experiments", "results/published")
FILES = ("requirements.lock",)


class BuildWithShipped(build_py):
    """Build the package, and copy into it what it reads when it runs."""

    def run(self) -> None:
        """Build `lorta`, then copy FOLDERS and FILES anew, so that a deleted file does not live on in `build`."""
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib) / SHIPPED
        shutil.rmtree(place, ignore_errors=True)
        for folder in FOLDERS:
            shutil.copytree(HERE / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"))
        for file in FILES:
            shutil.copy(HERE / file, place / file)


setup(cmdclass={"build_py": BuildWithShipped})
