"""Forgetting and merging in reports: shown where records have them, and nowhere else."""

import csv
import io
from dataclasses import replace

import pytest

from lorta.analysis.load import Source
from lorta.analysis.summary import summarise
from lorta.records.record import Forgetting, Merging, RunRecord
from lorta.reporting.csv_tables import to_long_csv
from lorta.reporting.diagnostic_tables import check_grid, check_notes
from lorta.reporting.html.assembly import make_page
from lorta.reporting.html.tables import check_table
from lorta.reporting.tables import to_markdown
from tests.example_records import finished, sweep, the_table


def checked(after: float, difference: float, sha256: str = "t", **options) -> RunRecord:
    found = Forgetting(
        objective="masked", text="primer", text_sha256=sha256, tokens=99, loss_before=0.5, loss_after=after
    )
    merging = Merging(rows=8, largest_difference=difference)
    return replace(finished(**options), forgetting=found, merging=merging)


def test_reports_of_records_without_checks_do_not_mention_them():
    table = the_table(sweep())
    assert check_grid(table) is None and check_table("x", table) is None
    assert "orgetting" not in to_markdown([table], sweep())
    assert "base_loss" not in to_long_csv(sweep()) and "merging" not in to_long_csv(sweep())


def test_row_has_mean_losses_the_range_of_the_rise_and_the_largest_difference():
    table = the_table([checked(0.6, 1e-7, seed=0), checked(0.8, 3e-7, seed=1)])
    grid = check_grid(table)
    assert grid is not None
    assert grid.body == (("lora r=4", "0.5000", "0.7000", "+0.2000 (+0.1000 to +0.3000)", "3.0e-07"),)


def test_what_is_null_has_a_dash_and_its_reason():
    why = {"merging": "runtime.checks=false", "forgetting": "no language head", "tracking": "off"}
    table = the_table([checked(0.6, 1e-7), replace(finished("vera"), reasons=why)])
    grid = check_grid(table)
    assert grid is not None and grid.body[1][1:] == ("–",) * 4  # noqa: RUF001
    assert grid.footnotes == ("vera r=4, forgetting: no language head", "vera r=4, merging: runtime.checks=false")
    assert [grid.marks[1, column] for column in range(1, 5)] == [1, 1, 1, 2]


@pytest.mark.parametrize(("second", "warned"), [("t", False), ("another", True)])
def test_losses_on_different_texts_come_with_a_warning(second, warned):
    table = the_table([checked(0.6, 1e-7), checked(0.6, 1e-7, second, seed=1)])
    assert any("different texts" in note for note in check_notes(table)) == warned


def test_markdown_and_page_show_the_same_cells():
    records = [checked(0.6, 1e-7), replace(finished("vera"), reasons={"merging": "no", "forgetting": "no head"})]
    table = the_table(records)
    page = check_table("x", table)
    assert page is not None
    assert "| lora r=4 | 0.5000 | 0.6000 | +0.1000 | 1.0e-07 |" in to_markdown([table], records)
    assert [cell.text for cell in page.rows[0]] == ["lora r=4", "0.5000", "0.6000", "+0.1000", "1.0e-07"]
    assert [cell.mark for cell in page.rows[1]] == [None, 1, 1, 1, 2]


@pytest.mark.parametrize(("records", "shown"), [([checked(0.6, 1e-7)], True), ([finished()], False)])
def test_the_page_has_the_table_where_records_have_checks(records, shown):
    page = make_page("x", Source(records, {}, {}), {})
    assert ("<h3>Forgetting and merging</h3>" in page) == (">1.0e-07<" in page) == shown


def test_long_csv_has_a_value_for_each_run_that_was_checked():
    text = to_long_csv([checked(0.6, 1e-7), finished("vera")])
    rows = {row["adapter"]: row for row in csv.DictReader(io.StringIO(text))}
    assert [rows["lora"][name] for name in ("base_loss_before", "base_loss_after")] == ["0.5", "0.6"]
    assert rows["lora"]["merging_difference"] == "1e-07" and rows["vera"]["merging_difference"] == ""


def test_a_record_keeps_its_checks_and_an_older_one_is_still_read():
    record = checked(0.6, 1e-7)
    assert RunRecord.from_json(record.to_json(), "x") == record
    older = finished().to_json().replace('"forgetting": null, "merging": null, ', "").replace(', "check_s": null', "")
    assert "forgetting" not in older and "check_s" not in older
    assert summarise([RunRecord.from_json(older, "x")]) == summarise([finished()])
