"""Write results/costs/swapping.md from what `measure_swapping.py --save` measured, beside what was published.

python scripts/swapping_table.py
"""

import csv
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lorta.harness.markup import TextTable, markdown_notes, markdown_table
from lorta.harness.published import lines, load

FOLDER = Path(__file__).resolve().parents[1] / "results" / "costs"
HEAD = """# What many adapters cost

Adapters on q, k, v and o of a BERT of MiniLM's size (384 wide, 6 layers), random weights, float32, without a head; times in
milliseconds, medians over the separate runs of `scripts/measure_swapping.py` behind a row. *Load*: PEFT reads all of them
from disk, one after the other. *Swap*: from one to another that is loaded. *Copy*: only their tensors, from the host to a
GPU. Processor time leaves out what other processes did meanwhile. Made by `scripts/swapping_table.py` from `swapping.csv`.
"""
TIMES = ("load_ms", "last_load_ms", "swap_ms", "copy_ms")
WORDS = ("load all", "load one, the last ten", "swap", "copy all")


def measured(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the lines of the measured table; a column that nobody measured is left out."""
    groups: dict[tuple[str, int, str, int], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[f"{row['device']}, {row['clock']} time", int(row["rank"]), row["method"], int(row["adapters"])].append(
            row
        )
    shown = [(name, word) for name, word in zip(TIMES, WORDS, strict=True) if any(row[name] for row in rows)]
    header = ("method", "clock", "rank", "parameters", "bytes each", "adapters", "runs", *(word for _, word in shown))
    body = [
        (method, clock, str(rank), f"{int(of[0]['parameters']):,}", f"{int(of[0]['adapter_bytes']):,}", str(adapters))
        + (str(len(of)), *(median(of, name) for name, _ in shown))
        for (clock, rank, method, adapters), of in groups.items()
    ]
    return markdown_table(TextTable(header, tuple(body), left=2))


def median(rows: Sequence[dict[str, str]], column: str) -> str:
    """Return the median over runs, empty where it was not measured."""
    values = [float(row[column]) for row in rows if row[column]]
    return f"{statistics.median(values):,.1f}" if values else ""


def published() -> list[str]:
    """Return the published table of copying times: another model, a GPU, random tensors."""
    found = lines(load("lorta"), "transfer_times")
    table = found[0].table
    values = [[line.row.scores.get(name) for name in table.columns] for line in found]
    texts = [
        ["" if v is None else f"{v.value:g}" + (f" ± {v.spread:g}" if v.spread else "") for v in row] for row in values
    ]
    body = tuple((line.row.method, str(line.row.rank), *row) for line, row in zip(found, texts, strict=True))
    shown = TextTable(("method", "rank", *table.columns), body, footnotes=(str(table.note).strip(),))
    return [
        "",
        "## Published",
        "",
        f"{table.title}; {table.source}.",
        "",
        *markdown_table(shown),
        "",
        *markdown_notes(shown),
    ]


def main() -> None:
    """Read the rows and write both tables."""
    with (FOLDER / "swapping.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    (FOLDER / "swapping.md").write_text("\n".join([HEAD, *measured(rows), *published(), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
