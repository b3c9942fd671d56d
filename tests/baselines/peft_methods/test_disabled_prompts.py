"""Prompted classifiers that are switched off for a while, which PEFT alone cannot do."""

import copy

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch.testing import assert_close

from baselines.peft_methods.prompt_tuning import PAST_LENGTHS

PAIRS = [(name, family) for name in ("prompt_tuning", "p_tuning") for family in ("roberta", "bert", "deberta")]
PAIRS += [("prefix_tuning", family) for family in ("roberta", "bert")]  # DeBERTa takes no past keys


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_prompted_classifier_can_be_switched_off_and_on(adapter, backbone, tokens, name, family):
    base = backbone(family).model(tokens).logits
    model = adapter(name, num_virtual_tokens=5).attach(backbone(family), "SEQ_CLS").eval()
    torch.manual_seed(3)
    for weight in model.prompt_encoder.parameters():
        weight.data.normal_(std=3.0)
    prompted = model(tokens).logits
    for twin in (model, copy.deepcopy(model)):
        with twin.disable_adapter():
            assert_close(twin(tokens).logits, base)
            with twin.disable_adapter():
                assert_close(twin(tokens).logits, base)
            assert_close(twin(tokens).logits, base)
            if twin is not model:
                assert_close(model(tokens).logits, prompted)
        assert_close(twin(tokens).logits, prompted)
    assert not torch.allclose(prompted, base, atol=1e-3)


def test_pefts_own_context_still_fails_on_a_prompted_classifier(backbone):
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="SEQ_CLS")
    model = get_peft_model(backbone("roberta").model, config)
    with pytest.raises(UnboundLocalError), model.disable_adapter():  # when this passes no more, drop `disabled`
        pass


def renamed(model, name):
    """Let the model's embeddings get the prefix's length under another name."""

    def rename(_, arguments, options):
        return arguments, {name if key in PAST_LENGTHS else key: value for key, value in options.items()}

    model.roberta.embeddings.register_forward_pre_hook(rename, with_kwargs=True)


def test_a_prefix_whose_length_comes_under_an_unknown_name_is_refused(adapter, backbone, tokens):
    base = backbone("roberta")
    renamed(base.model, "prefix_length")
    model = adapter("prefix_tuning", num_virtual_tokens=5).attach(base, "SEQ_CLS").eval()
    with pytest.raises(RuntimeError, match=r"RobertaEmbeddings.*past_key_values_length or cache_length"):
        model(tokens)


def test_the_name_of_the_next_transformers_is_known(adapter, backbone, tokens):
    base, seen = backbone("roberta"), {}
    renamed(base.model, "cache_length")
    model = adapter("prefix_tuning", num_virtual_tokens=5).attach(base, "SEQ_CLS").eval()
    base.model.roberta.embeddings.register_forward_pre_hook(
        lambda _, arguments, options: seen.update(options), with_kwargs=True
    )
    with pytest.raises(TypeError, match="cache_length"):  # of this release, which does not know that name
        model(tokens)
    assert seen["cache_length"] == 0
