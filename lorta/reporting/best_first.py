"""Rows with the best score first: the average where a table has one, else its only task."""

from collections.abc import Sequence

from lorta.analysis.significance import AVERAGE, columns
from lorta.analysis.summary import Row, Table
from lorta.reporting.markup import TextTable


def score_of(row: Row, column: str) -> float | None:
    """Return the mean of a row in a column, the average among them."""
    return (row.average if column == AVERAGE else row.cells[column]).mean


def best_first(table: Table) -> list[int]:
    """Return the numbers of the rows, the best in the last column first, those without a score last."""
    column, sign = columns(table)[-1], -1 if table.higher_is_better else 1

    def place(number: int) -> tuple[bool, float]:
        value = score_of(table.rows[number], column)
        return value is None, sign * (value or 0.0)

    return sorted(range(len(table.rows)), key=place)


def in_order(cells: TextTable, order: Sequence[int]) -> TextTable:
    """Return the table with its rows in another order, and its footnotes numbered from the top."""
    new_place = {row: place for place, row in enumerate(order)}
    marks = sorted(((new_place[row], column), number) for (row, column), number in cells.marks.items())
    numbers: dict[int, int] = {}
    for _, number in marks:
        numbers.setdefault(number, len(numbers) + 1)
    return TextTable(
        cells.header,
        tuple(cells.body[row] for row in order),
        {cell: numbers[number] for cell, number in marks},
        tuple(cells.footnotes[number - 1] for number in numbers),
        frozenset((new_place[row], column) for row, column in cells.bold),
        frozenset((new_place[row], column) for row, column in cells.ties),
        cells.left,
    )
