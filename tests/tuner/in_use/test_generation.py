"""Cached generation reads the factors of this moment; the released code fails before a first forward, then lags."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from lorta.tuner import LortaConfig

SETTINGS = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "use_cache": True}


def generate(model, tokens):
    return model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **SETTINGS)


@pytest.fixture
def saved(backbone, randomise, tmp_path):
    model = randomise(get_peft_model(backbone("llama_lm"), LortaConfig(r=3, alpha=2.0, task_type="CAUSAL_LM")))
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_loaded_adapter_generates_before_any_forward_pass(backbone, saved, tokens):
    model = PeftModel.from_pretrained(backbone("llama_lm"), saved).eval()
    generated = generate(model, tokens)
    assert not torch.equal(generated, generate(backbone("llama_lm"), tokens))
    assert torch.equal(generated, generate(model.merge_and_unload(), tokens))


def test_generation_follows_a_training_step_a_swap_and_switching_off(backbone, saved, randomise, tokens):
    model = PeftModel.from_pretrained(backbone("llama_lm"), saved, is_trainable=True).train()
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=1.0)
    before = generate(model.eval(), tokens)
    model.train()(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    after = generate(model.eval(), tokens)
    assert not torch.equal(after, before)
    model.load_adapter(str(saved), adapter_name="untrained")
    model.set_adapter("untrained")
    assert torch.equal(generate(model, tokens), before)
    model.set_adapter("default")
    assert torch.equal(generate(model, tokens), after)
    with model.disable_adapter():
        assert torch.equal(generate(model, tokens), generate(backbone("llama_lm"), tokens))
