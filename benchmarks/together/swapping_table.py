"""Write results/costs/swapping.md from the rows that `swapping.py --save results/costs/swapping.csv` measured.

python -m benchmarks.together.swapping_table

The published times stand below. No torch: rows are read from CSV.
"""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from lorta.analysis.published import Value, lines, load
from lorta.analysis.summary import group
from lorta.reporting.markup import TextTable, markdown_table

FOLDER = Path(__file__).resolve().parents[2] / "results" / "costs"
HEAD = """# What many adapters cost

Adapters on q, k, v and o of a BERT of MiniLM's size (384 wide, 6 layers), random weights, float32, no head. Times are
milliseconds, medians over separate runs of `benchmarks/together/swapping.py`. *Load*: PEFT reads all of them from disk,
one after the other; it walks over the whole model every time. *Swap*: from one to another that is loaded. *Copy*: only
their tensors, from the host to a GPU. Processor time is the process's own, on a machine that others used as well.
VeRA's files also hold the frozen projections that its adapters share; LoRETTA_rep's rank is that of its tensor trains.
`benchmarks/together/swapping_table.py` makes this page from `swapping.csv`.
"""
TIMES = {"load_ms": "load all", "last_load_ms": "load one, the last ten", "swap_ms": "swap", "copy_ms": "copy all"}
IDENTITY = ("method", "device", "clock", "rank", "parameters", "adapter_bytes", "adapters")
Saved = dict[str, str]  # a row of the CSV


def swapping_page(file: Path) -> str:
    """Return both tables as Markdown. Raises OSError for a file that is not there."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return "\n".join([HEAD, *_measured(rows), "", "## Published", "", *_published(), ""])


def _measured(rows: Sequence[Saved]) -> list[str]:
    """Return a line for each method, rank and number of adapters; a time that nobody measured has no column."""
    shown = [name for name in TIMES if any(row[name] for row in rows)]
    header = ("method", "device", "clock", "rank", "parameters", "bytes each", "adapters", "runs")
    body: list[tuple[str, ...]] = []
    for identity, of in group(rows, lambda row: tuple(row[name] for name in IDENTITY)).items():
        *words, rank, parameters, size, adapters = identity
        sizes = (rank, f"{int(parameters):,}", f"{int(size):,}", adapters, str(len(of)))
        body.append((*words, *sizes, *(_median(of, name) for name in shown)))
    return markdown_table(TextTable((*header, *(TIMES[name] for name in shown)), tuple(body), left=3))


def _median(rows: Sequence[Saved], column: str) -> str:
    values = [float(row[column]) for row in rows if row[column]]
    return f"{statistics.median(values):,.1f}" if values else ""


def _published() -> list[str]:
    """Return the published times: copies only, of another model's adapters, on a GPU that is not named."""
    ledger = lines(load("lorta"), "transfer_times")
    table = ledger[0].table
    body = [
        (line.row.method, str(line.row.rank), *(_text(line.row.scores.get(name)) for name in table.columns))
        for line in ledger
    ]
    shown = TextTable(("method", "rank", *table.columns), tuple(body))
    note = " ".join(str(table.note).split())
    return [f"{table.title}.", f"Source: {table.source}.", "", *markdown_table(shown), "", f"Note: {note}."]


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    return f"{value.value:g}" + ("" if value.spread is None else f" ± {value.spread:g}")


if __name__ == "__main__":
    (FOLDER / "swapping.md").write_text(swapping_page(FOLDER / "swapping.csv"), encoding="utf-8")
