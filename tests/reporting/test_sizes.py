from dataclasses import replace

from lorta.analysis.summary import summarise
from lorta.records.sections import Memory, Throughput
from lorta.reporting.sizes import size_grid
from tests.example_records import finished


def test_sizes_and_speed_are_ranges_over_the_runs_and_peaks_are_maxima():
    records = [
        replace(
            finished(seed=seed),
            throughput=Throughput(train_tokens_per_s=speed),
            memory=Memory(train_peak_tensor_bytes=peak * 2**20),
        )
        for seed, speed, peak in ((0, 310.2, 10), (1, 1290.4, 12))
    ]
    (table,) = summarise(records)
    header, (row,) = size_grid(table)
    shown = dict(zip(header, row, strict=True))
    assert shown["training tokens/s"] == "310 to 1,290"
    assert shown["training peak MiB"] == "12"
    assert shown["trainable parameters"].replace(",", "").isdigit()


def test_what_no_run_knows_has_no_column():
    (table,) = summarise([replace(finished(), throughput=None)])
    assert "training tokens/s" not in size_grid(table)[0]
