"""Whether the same runs gave the same numbers elsewhere, and what their environments do not have in common.

A run's signature holds all that may move a number, so two records of one signature that differ have drifted: in
training, if the last training loss differs too, and else in evaluation.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lorta.records.record import RunRecord

TOLERANCE = 1e-9
MOST_PACKAGES = 10


class Drift(NamedTuple):
    """One run with another score than its reference; `difference` is here minus there, on the metric's own scale."""

    run_id: str
    metric: str
    difference: float
    in_training: bool


def drifts(records: Iterable[RunRecord], reference: Mapping[str, RunRecord]) -> list[Drift]:
    """Return the drifted ones of the records that have a reference of the same signature, the largest first."""
    drifted: list[Drift] = []
    for record in records:
        other = reference.get(record.run_id)
        if other is None:
            continue
        moved = [
            (abs(here - there), f"{split} {metric}", here - there)
            for split, scores in (record.metrics or {}).items()
            for metric, score in scores.items()
            if (here := score.value) is not None
            and (there := _value(other, split, metric)) is not None
            and abs(here - there) > TOLERANCE
        ]
        if moved:
            _, metric, difference = max(moved)
            drifted.append(Drift(record.run_id, metric, difference, record.train_loss_final != other.train_loss_final))
    return sorted(drifted, key=lambda drift: (-abs(drift.difference), drift.run_id))


def _value(record: RunRecord, split: str, metric: str) -> float | None:
    score = (record.metrics or {}).get(split, {}).get(metric)
    return None if score is None else score.value


def drift_sentences(records: Sequence[RunRecord], reference: Mapping[str, RunRecord]) -> list[str]:
    """Return what a reader must know of drift: against the reference, and between the runs' environments."""
    done = [record for record in records if record.status == "success"]
    shared = [record for record in done if record.run_id in reference]
    return [_against_reference(shared, reference), *_environments(done)]


def _against_reference(shared: Sequence[RunRecord], reference: Mapping[str, RunRecord]) -> str:
    if not shared:
        return "Drift: not known, because no other record of these runs exists."
    other = drifts(shared, reference)
    if not other:
        return f"Drift: none; {len(shared):,} of these runs were recorded elsewhere with the same scores."
    worst, training = other[0], sum(drift.in_training for drift in other)
    return (
        f"Drift: {len(other):,} of {len(shared):,} runs that were recorded elsewhere have different scores here, by up "
        f"to {abs(worst.difference):.4g} ({worst.metric} of run {worst.run_id}); {training:,} of them differ in "
        f"training, {len(other) - training:,} in evaluation only."
    )


def _environments(records: Sequence[RunRecord]) -> list[str]:
    prints = {record.env_fingerprint for record in records}
    if len(prints) < 2:
        return []
    versions: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        packages = record.environment.packages if record.environment else {}
        versions["python"][record.environment.python if record.environment else "unknown"] += 1
        for name, version in packages.items():
            versions[name][version] += 1
    differing = {name: counts for name, counts in sorted(versions.items()) if len(counts) > 1}
    listed = [f"{name} {', '.join(sorted(counts))}" for name, counts in differing.items()]
    more = f" and {len(listed) - MOST_PACKAGES} more" if len(listed) > MOST_PACKAGES else ""
    packages = f" They differ in {'; '.join(listed[:MOST_PACKAGES])}{more}." if listed else ""
    return [f"The runs come from {len(prints)} environments, so their training seconds cannot be compared.{packages}"]
