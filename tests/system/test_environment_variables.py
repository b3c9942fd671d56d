"""What the environment may and may not decide: refused with a remedy, recorded, or known to be without effect."""

import re
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import TrainingArguments

from lorta.config.places import CONF, ROOT
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.system import provenance
from lorta.system.environment import OFF, RECORDED, REFUSED, environment_problems, recorded_variables
from tests.faults.sweeps import plan

LIBRARIES = ("accelerate", "transformers", "peft", "trl", "bitsandbytes", "datasets", "huggingface_hub", "evaluate")
READ = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?\s*[\[(]|getenv\(|(?:parse_flag|parse_choice|get_int)_from_env\(\[?)"""
    r"""\s*f?["']([A-Z][A-Z0-9_]+)["']|["']([A-Z][A-Z0-9_]+)["'] (?:not )?in os\.environ"""
)
DOCUMENTED = re.findall(r"`([A-Z*][A-Z0-9_*]+)`", (ROOT / "docs/environment.md").read_text())
ASKED = {  # a value that means what the variable is for
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "PMI_SIZE": "2",
    "OMPI_COMM_WORLD_SIZE": "2",
    "MV2_COMM_WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "RANK": "0",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_DEFAULT_FPMATH_MODE": "BF16",
}


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_what_moves_numbers_is_refused_by_the_plan_with_a_remedy(refused, monkeypatch):
    value = ASKED.get(refused.name, "1")
    monkeypatch.setenv(refused.name, value)
    (problem,) = make_plan(["adapter=lora"], False, CONF).problems
    assert problem.startswith(f"environment variable {refused.name}={value}: it ")
    assert "unset it" in problem


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_a_value_that_asks_for_nothing_stops_nothing(refused):
    for value in refused.harmless:
        assert environment_problems(True, {refused.name: value.upper()}) == []
    assert environment_problems(True, {}) == []


def test_variables_of_one_launcher_share_a_sentence():
    torchrun = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    (sentence,) = environment_problems(False, torchrun)
    assert all(name in sentence for name in torchrun)
    assert "start with `python run.py`" in sentence


def test_a_hidden_gpu_is_refused_where_there_is_one():
    assert "CUDA_VISIBLE_DEVICES" in environment_problems(True, {"ACCELERATE_USE_CPU": "True"})[0]
    assert environment_problems(False, {"ACCELERATE_USE_CPU": "True"}) == []
    assert environment_problems(True, dict.fromkeys(["ACCELERATE_USE_CPU"], OFF[0])) == []


def test_a_run_refuses_what_its_own_environment_brings(tmp_path, monkeypatch):
    from lorta.launch.local import run_all

    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    (record,) = run_all([spec], workers=0)
    assert (record.status, record.failure.kind) == ("failed", "config")
    assert "trainer.precision" in record.failure.message
    assert Store(spec.settings.runtime.runs).read(spec.run_id) == record


def test_what_moves_the_last_digits_is_recorded(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setenv("HOME", "/nowhere")
    assert recorded_variables()["MKL_CBWR"] == "COMPATIBLE"
    assert "HOME" not in recorded_variables()
    provenance.environment.cache_clear()
    assert provenance.environment().env_vars["MKL_CBWR"] == "COMPATIBLE"
    provenance.environment.cache_clear()


def test_the_table_names_every_variable_that_is_refused_or_recorded():
    assert {refused.name for refused in REFUSED} | set(RECORDED) <= set(DOCUMENTED)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_table_names_every_variable_that_a_library_reads(library):
    spec = find_spec(library)
    assert spec is not None
    (root,) = spec.submodule_search_locations or []
    texts = [file.read_text(errors="replace") for file in Path(root).rglob("*.py")]
    names = {match[1] or match[2] for text in texts if "env" in text for match in READ.finditer(text)}
    assert names, "the expression meets nothing any more"
    assert sorted(name for name in names if not any(fnmatchcase(name, known) for known in DOCUMENTED)) == []


def test_a_trainer_uses_one_gpu_where_several_are_visible(tmp_path):
    """Trainer multiplies the batch by their number (DataParallel): runs on other machines would be other runs."""
    from torch import nn

    from lorta.training.trainer import OwnDataOrder

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert arguments.n_gpu == 0
    arguments._n_gpu = 4  # what a machine with four has
    assert OwnDataOrder(model=nn.Linear(1, 1), args=arguments).args.n_gpu == 1
