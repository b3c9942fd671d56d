"""Made-up records for the tests of store, summary and report."""

import hashlib
from dataclasses import replace
from typing import Any

from lorta.analysis.summary import Table, summarise
from lorta.records.canonical import canonical_json
from lorta.records.record import (
    AdapterSection,
    Code,
    Failure,
    ModelSection,
    Parameters,
    ProtocolSection,
    RunRecord,
    Score,
    Split,
    TaskSection,
    Timing,
)

METRICS = {"cola": "matthews_correlation", "stsb": "pearson"}


def sha256(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def finished(
    adapter: str = "lora",
    task: str = "rte",
    value: float | None = 0.8,
    seed: int = 0,
    rank: int | None = 4,
    parameters: int = 1000,
    **config: Any,
) -> RunRecord:
    """Return a successful run; `config` are settings that belong to its cell."""
    cell = {"adapter": {"name": adapter, "rank": rank}, "task": {"name": f"glue/{task}"}, "trainer": config}
    metric = METRICS.get(task, "accuracy")
    head = 100 if task == "stsb" else 200
    score = Score(value=value, n=277, reason=None if value is not None else "all predictions are equal")
    splits = {
        name: Split(rows=rows, fingerprint=f"{task} {name}") for name, rows in (("train", 2000), ("validation", 277))
    }
    identity = sha256({**cell, "seed": seed})
    return RunRecord(
        run_id=identity[:12],
        cell_id=sha256(cell)[:12],
        config_hash=identity,
        status="success",
        created_at="2026-01-01T00:00:00Z",
        started_at="2026-01-01T00:00:01Z",
        ended_at="2026-01-01T00:00:09Z",
        seed=seed,
        config={**cell, "seed": seed},
        overrides=(f"adapter={adapter}",),
        choices={"adapter": adapter, "model": "tiny", "task": f"glue/{task}"},
        adapter=AdapterSection(
            name=adapter, rank=rank, projections=("q", "v"), learning_rate=0.001, head_learning_rate=0.002, settings={}
        ),
        task=TaskSection(
            name=f"glue/{task}",
            protocol=1,
            source="embedded",
            revision="1",
            splits=splits,
            split_primary="validation",
            metric_primary=metric,
            higher_is_better=True,
            test_is_validation=True,
            max_train_samples=None,
        ),
        model=ModelSection(
            name="tiny",
            id="tiny",
            revision=None,
            dtype="float32",
            parameters_total=500_000,
            tokenizer_sha256="t",
            padding_side="right",
            pad_token_id=1,
        ),
        protocol=ProtocolSection(selection="last", tuned=False, epochs=3.0, max_steps=None),
        params=Parameters(adapter=parameters, head=head, other_trainable=0, trainable=parameters + head, total=510_000),
        time=Timing(wall_s=9.0, train_s=4.0),
        metrics={"validation": {metric: score}},
        code=Code(package_version="0.1.0", git_sha="a" * 40, git_dirty=False, diff_sha256=None),
        env_fingerprint="machine",
    )


def unfinished(status: Any, **options: Any) -> RunRecord:
    """Return the same run without a result: failed with an out-of-memory error, skipped, or still running."""
    failure = Failure(kind="oom", type="OutOfMemoryError", message="no memory left\nat step 3", phase="train", step=3)
    return replace(
        finished(**options),
        status=status,
        failure=failure if status in ("failed", "timeout", "preempted") else None,
        reason="a TT layer needs a hidden size that factorises" if status == "skipped" else None,
        metrics=None,
        params=None,
        time=None,
    )


def with_config(record: RunRecord, **config: Any) -> RunRecord:
    """Return the record with some groups of its configuration replaced, and the identity that follows from them."""
    cell = {key: value for key, value in (record.config | config).items() if key != "seed"}
    identity, seed = sha256({**cell, "seed": record.seed}), {"seed": record.seed}
    hashes = {"run_id": identity[:12], "cell_id": sha256(cell)[:12], "config_hash": identity}
    return replace(record, **hashes, config={**cell, **seed})


def with_section(record: RunRecord, name: str, /, **values: Any) -> RunRecord:
    """Return the record with some fields of one section replaced."""
    return replace(record, **{name: replace(getattr(record, name), **values)})


def sweep(tasks: int = 2, seeds: int = 3) -> list[RunRecord]:
    """Return two ranks of two methods and a head-only run on some tasks, in no particular order."""
    names = ("rte", "stsb", "cola", "mrpc", "qnli", "sst2")[:tasks]
    records = [
        finished(adapter, task, base + seed / 100 + rank / 1000, seed, rank, parameters * rank)
        for adapter, base, parameters in (("lora", 0.8, 1024), ("lorta", 0.7, 90))
        for rank in (4, 8)
        for task in names
        for seed in range(seeds)
    ]
    return records + [finished("head_only", task, 0.5, seed, None, 0) for task in names for seed in range(seeds)]


def the_table(records: list[RunRecord]) -> Table:
    """Return the only table of these records."""
    (table,) = summarise(records)
    return table
