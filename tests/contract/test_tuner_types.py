"""A tuner that PEFT does not ship is told from PEFT's own by nobody who only reads its type."""

import copy
import json
import pickle
from pathlib import Path

import pytest
from peft import PeftConfig, PeftMixedModel, PeftModel
from transformers import AutoModelForCausalLM

from lorta.peft_extension.config import ExternalType
from tests.contract.backbones import backbone, logits
from tests.contract.tuners import attach, base, config, external, same

SHARED = "uses shared state"  # transformers adapts the model in place, without the object that holds shared factors


@pytest.mark.parametrize("name", external())
def test_the_type_answers_like_a_member_of_pefts_enum(name, tmp_path):
    settings = config(name)
    settings.save_pretrained(str(tmp_path))
    read = PeftConfig.from_pretrained(str(tmp_path)).peft_type
    plain = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    for kind in (settings.peft_type, read, copy.deepcopy(settings.peft_type), pickle.loads(pickle.dumps(read))):
        assert isinstance(kind, ExternalType)
        assert type(kind.value) is str
        assert kind == kind.value == plain == f"{kind}"
        assert hash(kind) == hash(plain)


@pytest.mark.parametrize("name", external())
def test_pefts_status_names_the_type(name):
    assert attach(name).get_model_status().peft_types == {"default": config(name).peft_type.value}


@pytest.mark.parametrize("name", external())
def test_transformers_loads_the_adapter_or_says_why_not(name, tmp_path):
    model = attach(name)
    model.save_pretrained(tmp_path)
    plain = base(name)
    if type(model.base_model).uses_shared_state:
        with pytest.raises(ValueError, match=SHARED):
            plain.load_adapter(str(tmp_path))
        return
    plain.load_adapter(str(tmp_path))
    assert same(logits(plain), logits(model))


def test_an_auto_class_and_a_pipeline_load_a_folder_with_an_adapter(tmp_path):
    backbone("llama_lm").model.save_pretrained(tmp_path / "base")
    model = attach("melora")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    assert same(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")), logits(model))


@pytest.mark.parametrize("name", external())
def test_a_mixed_model_is_refused_with_pefts_own_sentence(name):
    kind = config(name).peft_type.value
    with pytest.raises(ValueError, match=f"The provided `peft_type` '{kind}' is not compatible"):
        PeftMixedModel(base(name), config(name))


@pytest.mark.parametrize("name", ["lorta", "melora"])
def test_the_card_says_what_to_import_and_once(name, tmp_path):
    model = attach(name)
    for _ in range(2):
        model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    module = {"lorta": "lorta.tuner", "melora": "baselines.linear.melora"}[name]
    assert text.count(f"import {module}\n") == 1
    assert text.count("KeyError") == 1
    assert ("lorta export" in text) == (name == "lorta")
    assert text.startswith("---\n")  # PEFT's own part is still there
    PeftModel.from_pretrained(base(name), tmp_path)


def test_adapters_of_several_names_share_one_card(tmp_path):
    model = attach("melora")
    model.add_adapter("second", config("melora"))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().count("import baselines.linear.melora") == 1
    assert not (Path(tmp_path) / "second" / "README.md").exists()
