"""What workers share: frozen imports, tokenizers, and base weights that are pages of the model's file."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from transformers import RobertaForSequenceClassification

from lorta.config.places import CONF
from lorta.launch import local, preload
from lorta.models.backbone import load_classifier
from lorta.models.locate import ModelFiles
from lorta.models.quantization import quantization_settings
from lorta.models.tokenizer import keep_tokenizer, load_tokenizer, tokenizer_sha256
from lorta.planning.planner import make_plan
from lorta.runner.tracking import mirror
from lorta.system.optional_libraries import ALL, BITSANDBYTES, WANDB, leave_out, require
from tests.contract.backbones import backbone

ROOT = Path(__file__).parents[2]
FOUR_BITS = "model.quantization=4bit"
TOKENIZER = ROOT / "lorta" / "embedded" / "weights" / "tiny"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_base_weights_are_pages_of_their_file_and_no_copies(tmp_path):
    model = backbone("roberta").model
    model.save_pretrained(tmp_path)
    for file in TOKENIZER.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    files = ModelFiles(str(tmp_path), None, "", model.config.to_dict())
    loaded = load_classifier(files, 2, "fp32").model
    assert isinstance(loaded, RobertaForSequenceClassification)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    copies = [
        name
        for name, weight in loaded.named_parameters()
        if not any(start <= weight.data_ptr() < end for start, end in ranges)
    ]
    assert copies == []


def test_the_server_of_workers_freezes_what_it_imported():
    assert int(output("import gc, lorta.launch.preload_server; print(gc.get_freeze_count())")) > 1000
    assert int(output("import gc, lorta.launch.preload; print(gc.get_freeze_count())")) == 0


def test_a_tokenizer_that_was_kept_is_handed_out_once():
    files = ModelFiles(str(TOKENIZER), None, "", {})
    keep_tokenizer(files)
    first, second, third = (load_tokenizer(files) for _ in range(3))
    first.padding_side = second.padding_side = "left"
    second("the dog sleeps", truncation=True, max_length=2)
    second.add_tokens(["unheard-of"])
    assert third.padding_side == "right"
    assert len(third("the dog sleeps")["input_ids"]) > 2
    assert tokenizer_sha256(first) == tokenizer_sha256(third) != tokenizer_sha256(second)


def test_the_server_of_workers_loads_every_model_of_a_sweep():
    program = preload.program(make_plan(["task=glue/rte,instruct", "adapter=lora,lorta"], True, CONF).specs)
    code = (
        "import sys, lorta.launch.preload_server, torch\n"
        "from lorta.models import tokenizer\n"
        "models = [name for name in sys.modules if name.startswith('transformers.models.') and '.modeling_' in name]\n"
        "print(len(tokenizer._kept), torch.get_num_threads(), 'torch._inductor.compile_fx' in sys.modules,\n"
        "      sorted(name.rpartition('_')[2] for name in models))"
    )
    kept, threads, compiler, models = output(code, program).split(maxsplit=3)
    assert (kept, threads, compiler) == ("2", "1", "False")
    assert "'roberta'" in models
    assert "'llama'" in models


def test_a_model_that_cannot_be_loaded_stops_no_server():
    (spec,) = make_plan(["task=glue/rte"], False, CONF).specs
    program = preload.program([replace(spec, model=replace(spec.model, location="nowhere"))])
    assert output("import lorta.launch.preload_server; print('there')", program) == "there"


def test_a_module_that_cannot_be_imported_stops_no_server(tmp_path, monkeypatch):
    (tmp_path / "of_an_author.py").write_text("raise RuntimeError('not finished')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(preload, "OF_ALL", ("of_an_author", *preload.OF_ALL))
    program = preload.program(make_plan(["task=glue/rte"], False, CONF).specs)
    assert output("import lorta.launch.preload_server, sys; print('peft' in sys.modules)", program) == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_beside_a_gpu_workers_import_torch_themselves(tmp_path):
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    code = (
        "from multiprocessing.forkserver import _forkserver as server\n"
        "from pathlib import Path\n"
        "from lorta.launch import local as workers\n"
        "from lorta.config.places import CONF\n"
        "from lorta.planning.planner import make_plan\n"
        "workers.gpus_here = lambda: True\n"
        f"plan = make_plan(['adapter=head_only', 'trainer=smoke', *{places!r}], False, CONF)\n"
        "statuses = [record.status for record in workers.run_all(plan.specs, 1) if record]\n"
        "print(*statuses, 'libtorch' in Path(f'/proc/{server._forkserver_pid}/maps').read_text())"
    )
    assert output(code) == "success False"


@pytest.mark.parametrize("tasks", ["glue/rte,instruct,folding", "dpo,commonsense/boolq"])
def test_runs_import_nothing_that_was_not_there_before_the_first(tmp_path, tasks):
    """TRL, and wandb with it, took each run of a decoder 1.3 seconds and 55 MiB."""
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = [f"task={tasks}", "adapter=lora", "trainer=smoke", *places]
    code = (
        "import sys, lorta.launch.preload_server\n"
        "from lorta.config.places import CONF\n"
        "from lorta.planning.planner import make_plan\n"
        "from lorta.runner.attempt import attempt\n"
        f"plan, before = make_plan({words!r}, True, CONF), set(sys.modules)\n"
        "print(*(attempt(spec, 0).status for spec in plan.specs), *(set(sys.modules) - before))"
    )
    program = preload.program(make_plan(words, True, CONF).specs)
    first, *more = output(code, program).splitlines()[-1].split()
    assert first == "success"
    late = {name for name in more if name != "success" and not name.startswith("encodings.")}
    assert late <= {"stringprep", "torch.profiler._cupti_monitor"}


def test_only_runs_on_quantised_weights_import_bitsandbytes(monkeypatch):
    plain, quantised = (make_plan(["task=glue/rte", *more], False, CONF).specs for more in ([], [FOUR_BITS]))
    assert BITSANDBYTES not in preload.imports(plain).libraries
    assert BITSANDBYTES in preload.imports([*plain, *quantised]).libraries
    files = replace(plain[0].model, config={"quantization_config": {"quant_method": "bitsandbytes"}})
    assert BITSANDBYTES in preload.imports([replace(plain[0], model=files)]).libraries

    not_in_memory(monkeypatch, BITSANDBYTES)
    leave_out(BITSANDBYTES)
    assert find_spec(BITSANDBYTES) is None  # what PEFT asks
    with pytest.raises(RuntimeError, match=r"model.quantization=4bit: this process was begun without bitsandbytes"):
        quantization_settings("4bit", torch.float32)


def test_only_runs_that_are_mirrored_import_wandb(monkeypatch):
    plain, trackio, offline = (
        make_plan(["task=instruct", *more], False, CONF).specs
        for more in ([], ["tracking.mode=trackio"], ["tracking.mode=offline"])
    )
    assert preload.imports([*plain, *trackio]).libraries == set()
    assert preload.imports([*plain, *offline]).libraries == {WANDB}

    not_in_memory(monkeypatch, WANDB)
    leave_out(WANDB)
    assert find_spec(WANDB) is None  # what TRL asks
    with pytest.raises(RuntimeError, match=r"tracking.mode=offline: this process was begun without wandb"):
        mirror(cast(Any, None), cast(Any, None), "offline", "a_project")


@pytest.mark.parametrize("library", ALL)
def test_a_library_that_is_in_memory_stays(monkeypatch, library):
    there = ModuleType(library)
    monkeypatch.setitem(sys.modules, library, there)
    leave_out(library)
    assert sys.modules[library] is there
    require(library, "a run")


def test_bitsandbytes_that_is_in_memory_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, BITSANDBYTES, ModuleType(BITSANDBYTES))
    leave_out(BITSANDBYTES)
    assert quantization_settings("4bit", torch.float32) is not None


def test_a_server_that_lacks_a_library_ends_before_runs_that_use_it(monkeypatch):
    """Otherwise PEFT in its workers would take quantised layers for ordinary ones."""
    done: list[str] = []
    monkeypatch.setattr(local.forkserver._forkserver, "_stop", lambda: done.append("end"))
    monkeypatch.setattr(local.forkserver, "ensure_running", lambda: done.append("begin"))
    monkeypatch.setenv(preload.VARIABLE, "")
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(context, "set_forkserver_preload", lambda names: None)
    server = local._Server()
    for word in ("seed=0", FOUR_BITS, "seed=1", "seed=2", FOUR_BITS, FOUR_BITS):
        specs = make_plan(["task=glue/rte", word], False, CONF).specs
        server.begin(specs, preload.imports(specs), context)
    assert done == ["begin", "end", "begin", "begin", "begin", "end", "begin", "begin"]


def not_in_memory(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Forget a library until the end of the test, even one that was never imported."""
    monkeypatch.setitem(sys.modules, library, ModuleType(library))
    monkeypatch.delitem(sys.modules, library)


def output(code: str, program: str | None = None) -> str:
    """What a Python process of its own prints."""
    more = {} if program is None else {preload.VARIABLE: program}
    found = {name: value for name, value in os.environ.items() if name != preload.VARIABLE}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={**found, **more})
    return done.stdout.strip()
