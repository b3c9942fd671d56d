"""The parts of the check for GPUs, at a tiny size on the processor."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from benchmarks import gpu_check, step_subjects
from benchmarks.gpu_check import CheckFailed, data_parallel, repeated_runs, step_ratios
from lorta.training.trainer import OwnDataOrder

TINY = BertConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    **step_subjects.WITHOUT_DROPOUT,
)
SHORT = ("task=glue/rte", "trainer=smoke", "adapter=head_only", "trainer.max_steps=1", "data.max_eval_samples=16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 2
    assert capsys.readouterr().out == "There is no GPU here that CUDA can use, so nothing was checked.\n"


def test_the_guard_against_data_parallel_can_fail(monkeypatch):
    assert data_parallel()["gpus_that_a_trainer_uses"] <= 1
    monkeypatch.setattr(OwnDataOrder, "__init__", super(OwnDataOrder, OwnDataOrder).__init__)
    monkeypatch.setattr(OwnDataOrder, "_wrap_model", lambda self, model: nn.DataParallel(model))
    with pytest.raises(CheckFailed, match="wraps its model in DataParallel and counts 2 GPUs"):
        data_parallel()


def test_a_repeated_run_leaves_the_same_bytes(tmp_path):
    figures = repeated_runs(tmp_path, (0, 0), SHORT)
    assert figures["identical_runs"] == 1


def test_other_bytes_and_runs_one_after_another_are_told(tmp_path, monkeypatch):
    record = SimpleNamespace(hardware=SimpleNamespace(gpu_count=1), started_at="1", ended_at="2")
    later = SimpleNamespace(hardware=SimpleNamespace(gpu_count=2), started_at="2", ended_at="3")
    monkeypatch.setattr(gpu_check, "runs", lambda *_: ({"a": record, "b": later}, 1.0))
    for place in ("alone", "beside"):
        for run_id in ("a", "b"):
            (folder := tmp_path / place / "runs" / run_id / "adapter").mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_text("same")
            (folder.parent / "predictions.jsonl").write_text("same")
    with pytest.raises(CheckFailed, match="no two runs were at work at the same time"):
        repeated_runs(tmp_path)
    later.started_at = "1"
    with pytest.raises(CheckFailed, match="a run saw 2 GPUs"):
        repeated_runs(tmp_path)
    (tmp_path / "beside" / "runs" / "b" / "predictions.jsonl").write_text("other")
    with pytest.raises(CheckFailed, match=r"left other bytes: b$"):
        repeated_runs(tmp_path)


def test_steps_in_bf16_have_ratios_and_peaks(monkeypatch):
    monkeypatch.setitem(step_subjects.SHAPES, "tiny", (BertModel, TINY, (2, 4)))
    rows = step_ratios(["tiny"], [2], 1, "cpu")
    assert [row["method"] for row in rows] == list(step_subjects.METHODS)
    assert {row["dtype"] for row in rows} == {"bfloat16"}
    assert all(float(str(row["to_floor"])) > 0 and float(str(row["peak_mib"])) > 0 for row in rows)
