"""What PEFT's users do with any adapter, for the tuners of few parameters."""

import pytest
import torch
from peft import PeftModel

NAMES = ["lora_xs", "tt_lora", "nola", "svft", "ether", "ether_plus", "loldu", "quanta"]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def saved(name, adapter, backbone, tokens, randomise, tmp_path):
    """A folder with a trained adapter, and its logits."""
    torch.manual_seed(0)
    model = adapter(name, 3).attach(backbone("llama"), "SEQ_CLS").eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    return tmp_path, model(tokens).logits.detach()


def test_rows_of_one_batch_use_the_adapters_they_name(saved, backbone, tokens):
    folder, expected = saved
    plain = backbone("llama").model(tokens).logits
    model = PeftModel.from_pretrained(backbone("llama").model, folder, adapter_name="one").eval()
    logits = model(tokens, adapter_names=["one", "__base__", "one"]).logits
    torch.testing.assert_close(logits[[0, 2]], expected[[0, 2]])
    torch.testing.assert_close(logits[1], plain[1])


def test_a_merged_and_unloaded_model_is_plain(saved, backbone, tokens, name):
    folder, expected = saved
    merged = PeftModel.from_pretrained(backbone("llama").model, folder).merge_and_unload()
    torch.testing.assert_close(merged(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    assert not [path for path, _ in merged.named_parameters() if f"{name.removesuffix('_plus')}_" in path]


def test_a_bf16_base_has_trained_numbers_in_float32(name, adapter, backbone, tokens):
    method, base = adapter(name, 3), backbone("roberta", dtype=torch.bfloat16)
    plain = base.model(tokens).logits
    model = method.attach(base, "SEQ_CLS").eval()
    trained = {weight.dtype for path, weight in model.named_parameters() if weight.requires_grad and "_branch" in path}
    assert trained == {torch.float32}
    if method.identity_at_start:
        torch.testing.assert_close(model(tokens).logits, plain.float(), rtol=0, atol=0.05)  # the head is float32
