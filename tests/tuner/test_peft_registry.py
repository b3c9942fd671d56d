import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from lorta.peft_extension.registry import ExternalTuner, register_tuner
from lorta.tuner import LortaConfig, LortaModel


class OtherConfig(LortaConfig):
    pass


def test_registering_again_changes_nothing():
    before = [
        dict(mapping)
        for mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING)
    ]
    assert register_tuner("lorta", LortaConfig, LortaModel, "lorta_") == "LORTA"
    assert before == [PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING]


@pytest.mark.parametrize("name", ["lorta", "lora"])
def test_a_name_that_is_taken_is_refused_and_the_owner_keeps_it(name):
    owner = PEFT_TYPE_TO_CONFIG_MAPPING[name.upper()]
    with pytest.raises(ValueError, match=f"'{name.upper()}' is already registered"):
        register_tuner(name, OtherConfig, LortaModel, "other_")
    assert PEFT_TYPE_TO_CONFIG_MAPPING[name.upper()] is owner


def test_a_prefix_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="'lora_' already belongs to peft type"):
        register_tuner("newcomer", OtherConfig, LortaModel, "lora_")
    assert "NEWCOMER" not in PEFT_TYPE_TO_CONFIG_MAPPING


def test_lora_still_works_beside_a_registered_tuner(backbone, tokens):
    model = get_peft_model(backbone("roberta"), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    assert torch.equal(model(tokens).logits, backbone("roberta")(tokens).logits)


def test_pefts_own_replacement_still_fails_on_a_classification_head(backbone, monkeypatch):
    model = get_peft_model(backbone("roberta"), LortaConfig(task_type="SEQ_CLS"))
    monkeypatch.delattr(ExternalTuner, "_replace_module")
    with pytest.raises(AttributeError, match="weight"):  # when this passes no more, drop the override
        model.merge_and_unload()
