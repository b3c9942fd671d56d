"""`lorta export | fit`: what the arguments say is checked at once, and nothing but the result is on the screen."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from lorta.cli.base_model import base_place
from lorta.cli.main import COMMANDS, main
from lorta.config.places import PACKAGE

if TYPE_CHECKING:
    from peft import PeftConfig

TINY = PACKAGE / "embedded" / "weights" / "tiny"
EMPTY = (2).to_bytes(8, "little") + b"{}"  # a safetensors file without tensors


@pytest.fixture
def saved(tmp_path, monkeypatch) -> Path:
    """A saved adapter, as far as it is looked at before torch is needed."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "saved"
    folder.mkdir()
    write_config(folder)
    (folder / "adapter_model.safetensors").write_bytes(EMPTY)
    return folder


def write_config(folder: Path, **more: str) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | more))


def test_a_model_of_conf_is_a_base_model():
    assert base_place("tiny", None, None, "a") == str(TINY)
    assert base_place(None, "tiny", None, "a") == str(TINY)
    assert base_place(str(TINY), "elsewhere", None, "a") == str(TINY)


@pytest.mark.parametrize(
    ("given", "named", "sentence"),
    [
        ("tinny", None, "--base tinny is no folder here and no name in conf/model (did you mean tiny"),
        ("/no/such/folder", None, "--base /no/such/folder is no folder here"),
        ("custom", None, "custom.yaml says no place of its own"),
        (None, "/gone/tiny", "a: the base model /gone/tiny, which it names, is no folder here"),
        (None, None, "the adapter does not name its base model: give the folder of the base model (--base FOLDER)"),
        ("nobody/nothing", None, "--base nobody/nothing is not in the local cache and offline mode is set"),
        (".", None, "--base . is a folder without a config.json"),
    ],
)
def test_a_base_model_that_is_nowhere_is_one_sentence_without_asking_a_hub(given, named, sentence, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as refused:
        base_place(given, named, None, "a")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert "--base FOLDER" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export none --to x", "none: no adapter is saved there, adapter_config.json is missing."),
        ("export run --to x", "did you mean run/adapter?"),
        ("export saved --to taken/x", "taken/x: taken is a file, and a folder is needed to write to"),
        ("export saved --to taken", "taken: taken is a file, and a folder is needed to write to"),
        ("export saved --to saved", "would replace the one that is read"),
        ("export saved --to x --rank 0", "--rank=0: a whole number, 1 or more"),
        ("export saved --to x --residual 1", "--residual=1.0: a share of the update"),
        ("export saved --to x --base tinny", "no name in conf/model"),
        ("export broken --to x", "broken/adapter_config.json: it is not JSON"),
        ("export nothing --to x", "nothing: adapter_model.safetensors is missing"),
        ("fit saved --rank 0 --to x", "--rank=0: a whole number, 1 or more"),
        ("fit saved --rank 1 --sweeps 0 --to x", "--sweeps=0: a whole number, 1 or more"),
        ("fit saved --rank 1 --to taken", "taken: taken is a file"),
        ("fit vera --rank 1 --to x", "vera/adapter_config.json: it is a VERA adapter, not LORA"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_nothing_is_written(saved, capsys, words, sentence):
    Path("taken").write_text("")
    for name, text in (("broken", "{"), ("nothing", '{"peft_type": "LORA"}'), ("run/adapter", "{}")):
        Path(name).mkdir(parents=True)
        (Path(name) / "adapter_config.json").write_text(text)
    Path("vera").mkdir()
    write_config(Path("vera"), peft_type="VERA")
    (Path("vera") / "adapter_model.safetensors").write_bytes(EMPTY)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Errno" not in said and len(said.splitlines()) == 1
    assert not Path("x").exists()


def test_refusals_import_no_torch(saved):
    code = (
        "import sys; from lorta.cli.main import main\n"
        "assert main('export saved --to x --base tinny'.split()) == 2\n"
        "assert main('fit saved --to saved --rank 1'.split()) == 2\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)


def save_tiny(settings: "PeftConfig", folder: Path) -> None:
    """Save an adapter of the embedded encoder whose update is not zero."""
    import torch
    from peft import get_peft_model
    from transformers import RobertaForSequenceClassification

    model = get_peft_model(RobertaForSequenceClassification.from_pretrained(str(TINY)), settings)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(0.0, 0.1, generator=generator)
    model.save_pretrained(str(folder))


@pytest.mark.parametrize("example", [*COMMANDS["export"].examples, *COMMANDS["fit"].examples])
def test_the_examples_of_the_help_run(example, tmp_path, monkeypatch, capsys):
    from peft import LoraConfig, PeftConfig

    from lorta.tuner import LortaConfig

    monkeypatch.chdir(tmp_path)
    command, folder, _, place, *_ = example.split()
    kinds = {
        "export": LortaConfig(r=2, task_type="SEQ_CLS"),
        "fit": LoraConfig(r=1, target_modules=["query", "value"], task_type="SEQ_CLS"),
    }
    save_tiny(kinds[command], Path(folder))
    assert main(example.split()) == 0
    assert capsys.readouterr().out.startswith(f"{place}: {'LoRA' if command == 'export' else 'LoRTA'} of rank ")
    assert PeftConfig.from_pretrained(place).peft_type == ("LORA" if command == "export" else "LORTA")


def test_an_export_prints_its_result_alone(tmp_path, capfd):
    """transformers' LOAD REPORT told of a classification head that is new, and would be read from the adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import RobertaForSequenceClassification
    from transformers.utils import logging

    model = RobertaForSequenceClassification.from_pretrained(str(TINY))
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    model.save_pretrained(str(tmp_path / "lora"))
    capfd.readouterr()
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    try:
        assert main(["export", str(tmp_path / "lora"), "--rank", "2", "--to", str(tmp_path / "to")]) == 0
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    said = capfd.readouterr()
    assert said.err == "" and said.out.splitlines()[0].startswith(f"{tmp_path}/to: LoRA of rank")
