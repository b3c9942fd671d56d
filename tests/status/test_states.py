"""A record that is read as plain JSON is named as its run is."""

from pathlib import Path

import pytest

from lorta.status.states import RawRecord

RUN = {"adapter": {"name": "lora", "rank": 8, "learning_rate": 1e-3}, "task": {"name": "glue/rte"}, "seed": 2}
HELD_OUT = {"config": {"data": {"holdout": 100}}}


@pytest.mark.parametrize(
    ("values", "title"),
    [
        (RUN, "lora r=8 glue/rte seed 2"),
        (RUN | {"adapter": {"name": "head_only"}}, "head_only glue/rte seed 2"),
        (RUN | HELD_OUT, "lora r=8 glue/rte trial 0.001 seed 2"),
        (
            RUN | {"config": {"data": {"holdout": 0.1}}},
            "lora r=8 glue/rte seed 2",
        ),  # of a single file of a user: no trial
        (RUN | {"config": {"data": {"hold_out": 0.1}}}, "lora r=8 glue/rte trial 0.001 seed 2"),  # the key of before
    ],
)
def test_a_record_is_named_by_adapter_rank_task_and_seed(values, title):
    assert RawRecord(Path("runs/a"), values).title == title


@pytest.mark.parametrize("values", [{}, {"task": None}, {"task": "rte"}])
def test_a_value_that_a_record_lacks_is_none(values):
    assert RawRecord(Path("runs/a"), values).get("task", "name") is None
