"""No save asks a model hub, and embeddings of another number than the base model's are still written."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import save_and_load
from safetensors.torch import load_file

from lorta.peft_extension.saving import adapter_weights
from lorta.tuner import LortaConfig
from lorta.tuner.export import export_model
from lorta.tuner.fit import FitSettings, fit_model
from tests.contract.backbones import adapter, backbone


@pytest.fixture(autouse=True)
def no_question(monkeypatch):
    """PEFT's question to the hub fails the test; its offline mode would hide it."""

    def ask(name, *_):
        raise AssertionError(f"the hub was asked for {name}")

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", ask)


def attached(config, base="someone/a-model-of-the-hub"):
    model = get_peft_model(backbone("roberta").model, config)
    model.peft_config["default"].base_model_name_or_path = base
    return model


def test_peft_itself_asks(tmp_path):
    with pytest.raises(AssertionError, match="the hub was asked for someone/a-model-of-the-hub"):
        attached(LoraConfig(target_modules=["query"])).save_pretrained(tmp_path)


def test_a_run_saves_its_adapter_without_a_question(tmp_path):
    method = adapter("lora")
    model = method.attach(backbone("roberta"), "SEQ_CLS")
    model.peft_config["default"].base_model_name_or_path = "someone/a-model-of-the-hub"
    method.save(model, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_export_and_fit_ask_nothing(tmp_path):
    export_model(attached(LortaConfig(r=2)), tmp_path / "lora")
    lora = LoraConfig(r=1, target_modules=["query"], init_lora_weights=False)
    fit_model(attached(lora), tmp_path / "lorta", FitSettings(2, restarts=1))


@pytest.mark.parametrize(("tokens", "saved"), [(60, 0), (61, 1)])
def test_embeddings_are_saved_where_their_number_has_changed(tmp_path, tokens, saved):
    base = backbone("roberta").model
    base.config.save_pretrained(tmp_path)
    model = get_peft_model(base, LortaConfig(r=2))
    base.resize_token_embeddings(tokens)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path)
    weights = [weight for name, weight in adapter_weights(model).items() if "embedding" in name]
    assert [weight.shape for weight in weights] == [torch.Size([tokens, 32])] * saved
    export_model(model, tmp_path / "lora")
    assert sum("embedding" in key for key in load_file(tmp_path / "lora" / "adapter_model.safetensors")) == saved
