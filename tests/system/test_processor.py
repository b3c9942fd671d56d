"""Whether bf16 is worth it on this processor is known before torch is imported."""

import platform

import pytest
import torch

from lorta.config.places import CONF
from lorta.planning import planner
from lorta.planning.planner import make_plan
from lorta.system.processor import CPUINFO, has_fast_bf16


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("processor: 0\nflags\t\t: fpu amx_tile amx_bf16\n", True),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_fp16\n", False),
        ("processor: 0\n", None),
    ],
)
def test_flags_of_the_processor_say_whether_bf16_is_fast(tmp_path, text, known):
    (tmp_path / "cpuinfo").write_text(text)
    assert has_fast_bf16(tmp_path / "cpuinfo") is known
    assert has_fast_bf16(tmp_path / "none") is None


@pytest.mark.skipif(not CPUINFO.exists() or platform.machine() != "x86_64", reason="Linux on x86")
def test_it_says_what_torch_says():
    says = torch.cpu.get_capabilities()
    assert has_fast_bf16() == (says["avx512_bf16"] or says["amx_bf16"])


@pytest.mark.parametrize(
    ("words", "fast", "gpus", "warned"),
    [
        (["trainer.precision=bf16"], False, False, True),
        (["trainer.precision=bf16"], True, False, False),
        (["trainer.precision=bf16"], None, False, False),
        (["trainer.precision=bf16"], False, True, False),
        (["trainer.precision=fp32"], False, False, False),
        (["trainer.precision=bf16", "hydra/launcher=slurm"], False, False, False),
    ],
)
def test_the_plan_warns_where_bf16_is_slow(monkeypatch, words, fast, gpus, warned):
    monkeypatch.setattr(planner, "has_fast_bf16", lambda: fast)
    monkeypatch.setattr(planner, "gpus_here", lambda: gpus)
    plan = make_plan(["task=glue/rte", *words], True, CONF)
    assert not plan.problems
    assert any("neither AVX512-BF16 nor AMX-BF16" in note for note in plan.notes) is warned
