"""Print how long pages of `lorta report` take to open in Debian's Chromium: medians of five, in seconds.

python scripts/open_pages.py [PAGE.html ...]    (without pages: one of the largest committed suite is made)

First paint: findings, first figure and first table are there to read. First screen: its table can be sorted. Ready: so
can all tables. Plots: plotly is read, and draws a figure when it is seen or pointed at. Seconds of the page's main
thread, up to then, are processor time. All depend on what else the machine does, so its load is printed.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from lorta.analysis.load import Source
from lorta.records.store import read_export
from lorta.reporting.html.assembly import make_page

ROOT = Path(__file__).parents[1]
REPEATS = 5
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
FIRST_SCREEN = "performance.getEntriesByName('first screen')[0].startTime / 1000"
READY = "performance.getEntriesByName('ready')[0].startTime / 1000"
PLOTS = "performance.getEntriesByName('plots')[0].startTime / 1000"


class Opening(NamedTuple):
    """Seconds of one page."""

    first_paint: float
    first_screen: float
    ready: float
    plots: float
    main_thread: float


def opened(browser: Any, page: Path) -> Opening:
    """Open a page once, in a context without a cache."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    protocol = context.new_cdp_session(tab)
    protocol.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(page.resolve().as_uri())
    tab.wait_for_selector("html[data-plots=true]", timeout=120_000)
    metrics = {metric["name"]: metric["value"] for metric in protocol.send("Performance.getMetrics")["metrics"]}
    marks = [tab.evaluate(of) for of in (FIRST_PAINT, FIRST_SCREEN, READY, PLOTS)]
    context.close()
    return Opening(marks[0], marks[1], marks[2], marks[3], metrics["TaskDuration"])


def largest(folder: Path) -> Path:
    """Write the page of the committed suite with the most runs."""
    suites = {file: read_export(file) for file in (ROOT / "results" / "records").glob("*.jsonl*")}
    file = max(suites, key=lambda file: len(suites[file]))
    page = folder / f"{file.name.partition('.')[0]}.html"
    page.write_text(make_page(page.stem, Source(suites[file], {}, {}), {}), encoding="utf-8")
    return page


def main() -> None:
    """Open each page five times and print a table."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE.html")
    given = parser.parse_args().pages
    print(
        "| page | MB | first paint | first screen | ready | plots | main thread | load |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for page in given or [largest(Path(folder))]:
            of_page = [opened(browser, page) for _ in range(REPEATS)]
            medians = " | ".join(f"{statistics.median(seconds):.2f}" for seconds in zip(*of_page, strict=True))
            size = page.stat().st_size / 1e6
            print(f"| {page.name} | {size:.1f} | {medians} | {os.getloadavg()[0]:.1f} |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
