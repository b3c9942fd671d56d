"""Where an adapter is written, and what is read of a stranger's base model on the way."""

import json
import os
from typing import Any

import pytest
import torch
from peft import LoraConfig

from lorta.tuner.export import export_folder, read_base_config, write_adapter
from lorta.tuner.fit import FitSettings, fit_folder
from lorta.tuner.singular_export import export_singular
from tests.contract.backbones import adapter, backbone


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("command", [export_folder, lambda source, to: fit_folder(source, to, FitSettings(1))])
def test_an_adapter_that_is_there_is_not_replaced(command, name, tmp_path):
    """The folder of another adapter was overwritten without a word."""
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / name).write_text("another")
    with pytest.raises(ValueError, match=f"would replace the one that is there .{name}.: name another folder"):
        command(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / name).read_text() == "another"


def test_nobody_is_asked_whether_to_run_a_models_code(tmp_path, monkeypatch):
    """transformers asked on standard input, and waited."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "n")
    settings = {"model_type": "stranger", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ValueError, match="the model's own code is never run"):
        read_base_config(LoraConfig(), tmp_path)
    assert asked == []


def test_a_written_adapter_has_the_mode_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_adapter(LoraConfig(), {"lora_A": torch.zeros(1, 1)}, tmp_path)
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("*.safetensors")} == {
        "adapter_model.safetensors": "0o640"
    }


def test_pickled_weights_of_a_base_are_not_read(tmp_path):
    """Issue 17, A26: a base may come from elsewhere, and to unpickle is to run; `lorta run` refuses it, too."""
    base: Any = backbone("roberta").model
    method = adapter("oft")
    method.save(method.attach(backbone("roberta"), "SEQ_CLS"), tmp_path / "saved")
    base.config.save_pretrained(tmp_path / "base")
    torch.save(base.state_dict(), tmp_path / "base/pytorch_model.bin")
    with pytest.raises(ValueError, match="the weights of the base model are needed, and are not there"):
        export_singular(tmp_path / "saved", tmp_path / "lora", base=tmp_path / "base")
