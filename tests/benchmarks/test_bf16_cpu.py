"""The table of fp32 and bf16 pairs runs by seed."""

from dataclasses import replace

from benchmarks.bf16_cpu import rows_of
from tests.example_records import finished


def run(seed: int, precision: str, value: float, seconds: float):
    record = finished("lora", "stsb", value, seed, precision=precision)
    return replace(record, time=replace(record.time, train_s=seconds))


def test_a_row_has_means_deviations_and_the_median_ratio_within_seeds():
    pairs = [(0, 0.80, 10.0, 0.82, 5.0), (1, 0.82, 20.0, 0.80, 12.0), (2, 0.84, 40.0, 0.84, 28.0)]
    records = [run(seed, "fp32", a, s) for seed, a, s, _, _ in pairs] + [
        run(seed, "bf16", b, t) for seed, _, _, b, t in reversed(pairs)
    ]
    assert rows_of(records) == [
        {"adapter": "lora", "rank": 4, "seeds": 3}
        | {"fp32_collapsed": 0, "bf16_collapsed": 0}
        | {"fp32_pearson": 82.0, "fp32_std": 2.0, "fp32_train_s": 20.0}
        | {"bf16_pearson": 82.0, "bf16_std": 2.0, "bf16_train_s": 12.0, "time_ratio": 0.6}
    ]


def test_a_seed_without_a_score_in_one_precision_is_left_out_of_both():
    records = [run(seed, precision, 0.8, 9.0) for seed in (0, 1) for precision in ("fp32", "bf16")]
    (row,) = rows_of([*records, run(2, "fp32", 0.02, 9.0), run(2, "bf16", None, 9.0)])
    assert (row["fp32_pearson"], row["bf16_pearson"], row["seeds"]) == (80.0, 80.0, 3)
