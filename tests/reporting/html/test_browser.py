"""The page as a reader meets it, in headless Chromium: Debian's, driven by Playwright."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorta.analysis.load import Source
from lorta.analysis.losses import History
from lorta.reporting.html.assembly import make_page
from tests.example_records import finished, sweep, unfinished, with_config, with_section

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'lorta[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'lorta[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

RESET = """() => {
  document.querySelector("dialog").close();
  document.querySelectorAll("section details").forEach((part) => { part.open = false; });
  document.querySelectorAll(".dt-search input, .dtcc-search input").forEach((input) => {
    input.value = "";
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  document.activeElement.blur();
  scrollTo(0, 0);
}"""
WIDTHS = {"phone": 390, "desktop": 1440}
both_widths = pytest.mark.parametrize("page", WIDTHS, indirect=True)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A page with two tables of two tasks, failures, and training curves."""
    trial = with_config(finished(seed=7), data={"holdout": 400})
    records = [trial, *sweep(), unfinished("failed", seed=9), unfinished("skipped", adapter="loretta_rep", seed=8)]
    records += [
        with_section(with_config(record, data={"root": "elsewhere"}), "task", protocol=2, higher_is_better=False)
        for record in sweep()
    ]
    histories = {record.run_id: History(record.run_id, "x", (1, 2, 3), (3.0, 2.0, 1.0)) for record in records}
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(make_page("example", Source(records, {}, histories), {}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(browser, page_file) -> dict[str, tuple[Any, list[str]]]:
    """The page at both widths, once its tables are there, and all that went wrong or asked for a network."""
    return {name: _opened(browser, page_file, width) for name, width in WIDTHS.items()}


def _opened(browser, file: Path, width: int) -> tuple[Any, list[str]]:
    found, wrong = browser.new_page(viewport={"width": width, "height": 900}), []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    found.on("request", lambda sent: wrong.append(sent.url) if not _is_local(sent.url, file) else None)
    found.goto(file.as_uri())
    found.wait_for_selector("html[data-ready=true]")
    return found, wrong


@pytest.fixture
def page(request, pages) -> Iterator[Any]:
    """The page as at first but for what is sorted; an error or a request for a network fails the test at its end."""
    found, wrong = pages[getattr(request, "param", "desktop")]
    found.evaluate(RESET)
    playwright.expect(found.locator("#scores-1 tbody tr")).to_have_count(5)
    yield found
    assert wrong == []


def _is_local(url: str, file: Path) -> bool:
    return url.startswith(("data:", "blob:")) or url.partition("#")[0] == file.as_uri()


def column(page, number: int) -> list[str]:
    cells = page.locator(f"#scores-1 tbody tr > *:nth-child({number})")
    return [text.partition("\n")[0] for text in cells.all_inner_texts()]


def sort(page, place: int, direction: str) -> None:
    """Press a column's button; sorting ends a moment after the key."""
    page.locator("#scores-1 thead [role=button]").nth(place).press("Enter")
    page.wait_for_selector(f"#scores-1 th[aria-sort={direction}]")


@both_widths
def test_the_page_fits_its_width(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@both_widths
def test_the_page_breaks_no_rule_of_accessibility(page):
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for place in page.locator(".plot").all():
        place.scroll_into_view_if_needed()
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found] == []


def test_the_record_view_breaks_no_rule_of_accessibility(page):
    page.locator("#scores-1 td a").first.click()
    page.locator("dialog summary").first.click()
    playwright.expect(page.locator("dialog pre").first).to_be_visible()
    found = axe.Axe().run(page, context="dialog").response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found] == []


def test_a_table_is_sorted_by_the_keyboard(page):
    for direction in ("ascending", "descending"):
        sort(page, 1, direction)
        counts = [int(text.replace(",", "")) for text in column(page, 2)]
        assert counts == sorted((0, 360, 720, 4096, 8192), reverse=direction == "descending")


def test_scores_are_sorted_as_numbers(page):
    sort(page, 4, "ascending")
    scores = [float(text.partition(" ")[0]) for text in column(page, 5)]
    assert scores == sorted(scores)
    assert len(set(scores)) > 2


def test_a_table_is_filtered_as_a_whole_and_by_column(page):
    rows = page.locator("#scores-1 tbody tr")
    page.get_by_label("Filter scores:").first.fill("lorta")
    playwright.expect(rows).to_have_count(2)
    assert set(column(page, 1)) == {"lorta r=4", "lorta r=8"}
    page.get_by_label("Filter scores:").first.fill("")
    page.get_by_label("Filter by adapter", exact=True).first.fill("head")
    playwright.expect(rows).to_have_count(1)
    assert column(page, 1) == ["head_only"]


def test_a_column_of_numbers_takes_comparisons(page):
    best = page.get_by_label("Filter by adapter parameters", exact=True).first
    for words, left in ((">= 4,096", {"4,096", "8,192"}), ("< 720", {"0", "360"}), ("= 360", {"360"})):
        best.fill(words)
        playwright.expect(page.locator("#scores-1 tbody tr")).to_have_count(len(left))
        assert set(column(page, 2)) == left
    best.fill("")
    playwright.expect(page.locator("#scores-1 tbody tr")).to_have_count(5)


def test_trials_are_shown_when_they_are_asked_for(page):
    page.get_by_label("Filter all runs:").fill("trial")
    trials = page.locator("#all-runs tbody tr:has(a)")
    playwright.expect(trials).to_have_count(0)
    page.get_by_label("Show 1 trials").check()
    playwright.expect(trials).to_have_count(1)
    page.get_by_label("Show 1 trials").uncheck()
    playwright.expect(trials).to_have_count(0)


@both_widths
def test_the_first_screen_has_a_finding_and_a_figure_whose_axes_are_chosen(page):
    playwright.expect(page.locator(".lead p").first).to_be_in_viewport()
    place = page.locator(".lead .plot").first
    assert place.bounding_box()["y"] < 600
    page.get_by_label("x axis, table-1").select_option("training time, s")
    playwright.expect(place.locator(".xtitle")).to_have_text("training time, s")
    playwright.expect(page.locator(".lead figcaption").first).to_contain_text("over training time, s")
    page.get_by_label("x axis, table-1").select_option("adapter parameters")
    playwright.expect(place.locator(".xtitle")).to_have_text("adapter parameters")


def test_the_first_screen_is_made_before_what_is_below_it(browser, page_file):
    """The first table waited for plotly, which takes a second to read, and the figure too."""
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.add_init_script("""performance.mark = (name) => {
      const parts = [".lead picture", "#scores-1_wrapper", "#all-runs_wrapper"];
      const count = () => [...parts.map((part) => document.querySelectorAll(part).length), "Plotly" in window];
      if (name !== "plots") (window.made ??= {})[name] = count();
      if (name === "first screen") setTimeout(() => { window.shown = true; });
      if (name === "ready") window.made.shown = "shown" in window;  // the browser had a turn in between
    }""")
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-plots=true]")
    made = {"first screen": [1, 1, 0, False], "ready": [1, 1, 1, False], "shown": True}
    assert opened.evaluate("made") == made
    opened.close()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_first_figure_is_there_without_javascript(browser, page_file, width):
    """And a wide table is scrolled by itself, before DataTables has one of its own for that."""
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=False)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    image = opened.locator(".lead img").first
    playwright.expect(image).to_be_in_viewport(ratio=0.9)
    drawn = image.bounding_box()
    assert drawn["width"] > 0.8 * (width if width < 600 else 800) and drawn["height"] > 300
    opened.evaluate("document.getElementById('scores-1').style.minWidth = '3000px'")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_the_first_figure_shows_values_once_it_is_pointed_at(browser, page_file):
    opened, wrong = _opened(browser, page_file, WIDTHS["desktop"])
    place = opened.locator(".lead .plot").first
    opened.wait_for_selector("html[data-plots=true]")
    assert place.locator(".xtitle").count() == 0  # the image does not change by itself
    place.hover()
    playwright.expect(place.locator(".xtitle")).to_have_text("adapter parameters")
    assert place.locator("picture").count() == 0
    assert wrong == []
    opened.close()


def test_notes_are_folded_and_a_cell_names_its_note(page):
    assert not page.locator("#scores-1 ~ details.folded li, .folded li").first.is_visible()
    page.locator(".folded summary").first.click()
    assert page.locator(".folded li").first.is_visible()


def test_the_dark_page_breaks_no_rule_of_accessibility(browser, page_file):
    opened = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-plots=true]")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    found = axe.Axe().run(opened).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found] == []
    opened.close()


def test_what_is_printed_is_unfolded_drawn_and_whole(browser, page_file):
    """Of a long table, only the page that was shown was printed."""
    opened, _ = _opened(browser, page_file, WIDTHS["desktop"])
    opened.wait_for_selector("html[data-plots=true]")
    rows = opened.locator("#all-runs tbody tr")
    opened.locator("#all-runs_wrapper .dt-length select").select_option("10")
    playwright.expect(rows).to_have_count(10)
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("main details:not([open])").count() == 0
    opened.locator(".plot:empty").first.wait_for(state="detached")
    assert rows.count() == len([*sweep(), *sweep()]) + 2  # all but the trial
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    playwright.expect(rows).to_have_count(10)
    opened.close()


def test_a_dark_page_is_printed_light(browser, page_file):
    opened = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-plots=true]")
    image = opened.locator(".lead img").first
    assert image.evaluate("(image) => getComputedStyle(image).filter") != "none"  # black on light, turned
    opened.locator(".lead .plot").first.hover()
    opened.locator(".lead .main-svg").first.wait_for()
    look = """() => [getComputedStyle(document.body).color,
      getComputedStyle(document.querySelector(".lead .main-svg")).backgroundColor]"""
    before = opened.evaluate(look)
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = opened.evaluate(look)
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert before == opened.evaluate(look) == ["rgb(232, 232, 232)", "rgb(22, 24, 27)"]
    assert printed[0] == "rgb(27, 27, 27)" and printed[1] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    opened.close()


def test_the_first_column_stays_where_a_table_is_scrolled(browser, page_file):
    opened, _ = _opened(browser, page_file, WIDTHS["phone"])
    cell, other = (opened.locator(f"#scores-1 tbody tr > *:nth-child({place})").first for place in (1, 2))
    before = cell.bounding_box()["x"], other.bounding_box()["x"]
    opened.evaluate("document.querySelector('#scores-1').parentElement.scrollLeft = 80")
    assert (cell.bounding_box()["x"], other.bounding_box()["x"]) == (before[0], before[1] - 80)
    opened.close()


@both_widths
def test_a_score_opens_its_records_and_escape_closes_them(page):
    link = page.locator("#scores-1 td a").first
    link.press("Enter")
    playwright.expect(page.locator("dialog summary")).to_have_count(3)
    summaries = page.locator("dialog summary").all_inner_texts()
    assert [re.sub(r"Run \w{12}", "Run", text) for text in summaries] == [
        f"Run, seed {seed}, success" for seed in "012"
    ]
    page.locator("dialog summary").first.click()
    playwright.expect(page.locator("dialog pre").first).to_contain_text('"config_hash"')
    for text in ("validation", "adapter="):  # scores and settings
        playwright.expect(page.locator("dialog dl").first).to_contain_text(text)
    playwright.expect(page.locator("dialog svg").first).to_have_attribute("aria-label", re.compile("from 3 to 1$"))
    page.keyboard.press("Escape")
    playwright.expect(page.locator("dialog")).to_be_hidden()
    playwright.expect(link).to_be_focused()


def test_an_address_with_a_run_opens_its_record(page, page_file):
    run = page.locator("#all-runs tbody th a").first.inner_text()
    page.goto(f"{page_file.as_uri()}#runs={run}")
    playwright.expect(page.locator("dialog pre")).to_contain_text(f'"run_id": "{run}"')
    page.get_by_role("button", name="Close").click()
    playwright.expect(page.locator("dialog")).to_be_hidden()


def test_every_run_is_in_the_table_of_all_runs_also_failed_ones(page):
    page.get_by_label("Filter all runs:").fill("failed")
    playwright.expect(page.locator("#all-runs tbody tr")).to_have_count(1)
    assert "oom in train" in page.locator("#failures").inner_text()


@both_widths
def test_plots_are_drawn_with_values_on_hover(page):
    place = page.locator(".plot").first
    place.hover()
    place.locator(".scatterlayer .points path").first.wait_for()
    dots = place.locator(".scatterlayer .points path")
    dots.last.hover(force=True)
    playwright.expect(place.locator(".hoverlayer")).to_contain_text(re.compile(r"LoR(T)?A \(r=\d\): \d+\.\d"))


def test_plots_by_task_are_drawn_when_they_are_opened(browser, page_file):
    page, _ = _opened(browser, page_file, WIDTHS["desktop"])
    details = page.locator("section details:has(.plot)").first
    assert details.locator(".main-svg").count() == 0
    details.locator("summary").press("Enter")
    details.locator(".main-svg").first.wait_for()


def test_every_plot_has_a_name_and_words_for_what_it_shows(page):
    names = [place.get_attribute("aria-label") for place in page.locator(".plot").all()]
    assert names and all(names)
    assert page.locator("figure figcaption").count() == len(names)
    assert "Pareto front: LoRTA (r=4)" in page.locator("figcaption").first.inner_text()


def test_the_skip_link_comes_first_and_leads_to_the_results(page):
    first = page.locator("a, button, input, select, summary, [tabindex]").first
    assert first.bounding_box()["x"] < 0  # out of sight until it has the focus
    first.focus()
    assert first.bounding_box()["x"] > 0
    first.press("Enter")
    playwright.expect(page).to_have_url(re.compile("#content$"))


MARKUP = '<u class="stranger">x</u>'  # harmless


def test_what_strangers_records_say_is_text(browser, tmp_path):
    """Names in the table of all runs were elements of the page."""
    records = [finished(adapter=MARKUP, seed=seed) for seed in range(2)]
    records = [with_section(record, "task", name=MARKUP) for record in records]
    records += [with_section(unfinished("failed", adapter=MARKUP, seed=3), "model", name=MARKUP, id=MARKUP)]
    file = tmp_path / "page.html"
    file.write_text(make_page(MARKUP, Source(records, {}, {}), {}), encoding="utf-8")
    opened, wrong = _opened(browser, file, WIDTHS["desktop"])
    playwright.expect(opened.locator("#all-runs tbody tr")).to_have_count(3)
    assert opened.locator(".stranger").count() == 0
    assert opened.locator("#all-runs").get_by_text(MARKUP).count() >= 3
    assert wrong == []
    opened.close()


def test_a_script_that_is_not_the_pages_own_does_not_run(browser, page_file):
    opened, wrong = _opened(browser, page_file, WIDTHS["desktop"])
    assert wrong == []
    opened.evaluate("""() => {
      const stranger = document.createElement("script");
      stranger.textContent = "document.documentElement.dataset.stranger = 'ran'";
      document.body.append(stranger);
    }""")
    assert opened.evaluate("document.documentElement.dataset.stranger ?? null") is None
    assert any("Content Security Policy" in line for line in wrong)
    opened.close()
