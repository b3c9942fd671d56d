"""Four sizes of a method, kept apart because they rank methods differently.

Numbers that are trained, numbers of the backbone that training left different, bytes that must be stored for a task,
and memory while training.
"""

from collections.abc import Callable

from lorta.analysis.summary import Row, Table
from lorta.records.record import RunRecord
from lorta.records.sections import Memory

SIZES: dict[str, tuple[Callable[[RunRecord], int | None], int]] = {  # column -> (value, unit)
    "trained numbers": (lambda record: record.params and record.params.trainable - record.params.head, 1),
    "changed base weights": (lambda record: record.params and record.params.changed, 1),
    "stored KiB": (lambda record: record.storage and record.storage.adapter_bytes, 2**10),
    "training peak MiB": (lambda record: record.memory and training_peak(record.memory), 2**20),
    "process peak MiB": (lambda record: record.memory and record.memory.host_rss_peak_bytes, 2**20),
}
NOTE = (
    "Trained numbers leave the head out, stored bytes include it. Changed base weights are those of the backbone that "
    "training left different, in methods that change weights in place; other methods add weights beside the backbone. "
    "The training peak is what a GPU's allocator saw or, on a CPU, weights, optimizer state and the tensors of one "
    "training step, whose batch has its own length; the process's peak holds libraries too. Peaks are the largest of "
    "the runs."
)


def training_peak(memory: Memory) -> int | None:
    """Return the peak of one training step in bytes, None where it was not measured."""
    return memory.train_peak_allocated_bytes or memory.train_peak_tensor_bytes


def size_grid(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows, smallest to largest over the runs of a row; a size that no run knows has no column."""
    columns = [name for name in SIZES if any(_values(row, name) for row in table.rows)]
    return ("adapter", *columns), [(row.label, *(_text(row, name) for name in columns)) for row in table.rows]


def _values(row: Row, name: str) -> list[int]:
    value, _ = SIZES[name]
    return [found for run in row.runs if (found := value(run.record)) is not None]


def _text(row: Row, name: str) -> str:
    values = [value / SIZES[name][1] for value in _values(row, name)]
    if not values:
        return ""
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    if name.endswith("MiB"):
        return high
    return low if low == high else f"{low} to {high}"
