"""Four sizes of a method, in separate columns because they rank methods differently, and its speed.

Trainable parameters, base weights that training changed, bytes stored per task, peak memory during training, and
training tokens a second.
"""

from collections.abc import Callable

from lorta.analysis.summary import Row, Table
from lorta.records.record import RunRecord
from lorta.records.sections import Memory

SIZES: dict[str, tuple[Callable[[RunRecord], float | None], int]] = {  # column -> (value, unit)
    "trainable parameters": (lambda record: record.params and record.params.trainable - record.params.head, 1),
    "changed base weights": (lambda record: record.params and record.params.changed, 1),
    "stored KiB": (lambda record: record.storage and record.storage.adapter_bytes, 2**10),
    "training peak MiB": (lambda record: record.memory and training_peak(record.memory), 2**20),
    "process peak MiB": (lambda record: record.memory and record.memory.host_rss_peak_bytes, 2**20),
    "training tokens/s": (lambda record: record.throughput and record.throughput.train_tokens_per_s, 1),
}
MATCHED = "matched size (adapter + other trainable)"
NOTE = (
    "Trainable parameters exclude the head; stored bytes include it. Changed base weights: weights of the backbone "
    "that training changed in place; most methods add weights beside the backbone and change none. Training peak: on a "
    "GPU, the allocator's peak; on a CPU, weights, optimizer state and all tensors of one training step with a batch "
    "of its own length. Process peak: resident memory of the whole process with its libraries. Peaks are maxima over "
    "the runs. Training tokens/s: without padding; runs of different processors, or beside other processes, cannot be "
    "compared."
)


def training_peak(memory: Memory) -> int | None:
    """Return the peak of one training step in bytes, None where it was not measured."""
    return memory.train_peak_allocated_bytes or memory.train_peak_tensor_bytes


def size_grid(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows, smallest to largest over the runs of a row; a size that no run knows has no column."""
    columns = [name for name in SIZES if any(_values(row, name) for row in table.rows)]
    matched = [MATCHED] if any(map(_matched, table.rows)) else []
    body = [
        (row.label, *(_matched(row) for _ in matched), *(_text(row, name) for name in columns)) for row in table.rows
    ]
    return ("adapter", *matched, *columns), body


def _matched(row: Row) -> str:
    """Return the sizes that budgets gave, each with its two parts; empty without one that counts both."""
    budgets = dict.fromkeys(budget for run in row.runs for budget in run.record.budgets)
    sizes = [(budget.achieved, budget.other) for budget in budgets if budget.counts == "trained" and budget.achieved]
    return "; ".join(dict.fromkeys(f"{size:,} ({size - other:,} + {other:,})" for size, other in sizes))


def _values(row: Row, name: str) -> list[float]:
    value, _ = SIZES[name]
    return [number for run in row.runs if (number := value(run.record)) is not None]


def _text(row: Row, name: str) -> str:
    values = [value / SIZES[name][1] for value in _values(row, name)]
    if not values:
        return ""
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    if name.endswith("MiB"):
        return high
    return low if low == high else f"{low} to {high}"


def trained_parameters(row: Row) -> int:
    """Return what a row trains besides the head, at most."""
    return row.adapter_parameters.high + row.other_parameters.high
