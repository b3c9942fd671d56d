"""Ten thousand records of the size of real ones: a committed suite over and over, with other names, seeds and times."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

from lorta.analysis.load import Source
from lorta.analysis.losses import MOST_POINTS, History
from lorta.records.record import RunRecord, Score, SideFile
from lorta.records.store import read_export
from tests.example_records import with_section

SUITE = Path(__file__).parents[3] / "results" / "records" / "embedded.jsonl.gz"
COPIES, SEEDS = 38, 5  # copies of a method share its name in groups of SEEDS


def many() -> Source:
    """Return 10,260 runs with a history each."""
    records = [copy(record, number) for number in range(COPIES) for record in read_export(SUITE)]
    return Source(records, {}, {record.run_id: history(record) for record in records})


def copy(record: RunRecord, number: int) -> RunRecord:
    """Return a record that nothing else equals: numbers that compress no better than measured ones."""
    assert record.adapter and record.task and record.metrics and record.time
    generator = random.Random(f"{record.run_id} {number}")
    name, seed = f"{record.adapter.name}_{number // SEEDS}", record.seed + 3 * (number % SEEDS)
    identity, cell = digest(record.run_id, number), digest(record.cell_id, number // SEEDS)[:12]
    files = {
        part: SideFile(path=f"{part}.jsonl", sha256=digest(part, record.run_id, number), n=40)
        for part in ("history_file", "predictions_file")
    }
    scores = {
        split: {
            metric: Score(value=(score.value or 0) * generator.uniform(0.9, 1), n=score.n)
            for metric, score in of.items()
        }
        for split, of in record.metrics.items()
    }
    config = {**record.config, "seed": seed, "adapter": {**record.config["adapter"], "name": name}}
    record = replace(record, run_id=identity[:12], cell_id=cell, config_hash=identity, seed=seed, config=config)
    record = replace(record, metrics=scores, train_loss_final=generator.random(), grad_norm_max=generator.random())
    record = with_section(record, "time", **{key: 9 * generator.random() for key in ("wall_s", "train_s", "eval_s")})
    return with_section(replace(record, **files), "adapter", name=name)


def history(record: RunRecord) -> History:
    generator = random.Random(record.run_id)
    losses = tuple(round(generator.random() / (1 + step / 10), 4) for step in range(MOST_POINTS))
    assert record.history_file
    return History(record.run_id, record.history_file.sha256, tuple(range(10, 10 + 10 * MOST_POINTS, 10)), losses)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
