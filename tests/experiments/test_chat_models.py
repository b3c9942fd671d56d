"""A decoder tuned on chats (ChatML, padding equals end of text): what it is asked, what it learns, what is saved."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.generation import Generation, write
from experiments.judge.answers import answer_settings, dialogue, template_of
from experiments.prompts import Request, encode
from experiments.supervised import IGNORED
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.models.backbone import load_causal_lm, padding_id
from lorta.models.gguf_conversion import convert
from lorta.models.locate import find_model
from lorta.planning.planner import make_plan
from tests.models.gguf_files import write_gguf

ASKED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    (root / "model").mkdir()
    write_gguf(root / "small.gguf")
    convert(root / "small.gguf", root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def planned(folder, *words):
    places = [f"runtime.{name}={folder.parent / name}" for name in ("runs", "cache")]
    source = ["data.source=embedded", "data.max_train_samples=6", "data.max_eval_samples=4", "data.max_length=256"]
    words = ["model=custom", f"model.path={folder}", "task.template=chat", *source, *places, *words]
    plan = make_plan(words, False, CONF)
    assert not plan.problems
    return plan.specs[0]


def loaded(spec):
    files = find_model(spec.settings.model)
    backbone = load_causal_lm(files, "fp32")
    task = build(spec.settings.task)
    cache = spec.folder.parents[1] / "cache"
    return backbone, task.load_data(spec.data, spec.settings.data, backbone.tokenizer, cache)


def test_an_answer_ends_with_the_token_at_which_generation_stops(tokenizer):
    encoded = encode("chat", Request("Why?"), "So.", "", tokenizer)
    assert tokenizer.decode(encoded.prompt) == ASKED
    assert tokenizer.decode(encoded.answer) == "So.<|im_end|>"  # and no line break, which nobody generates
    assert encode("chat", Request("Why?"), "", "", tokenizer).answer == [tokenizer.eos_token_id]


def test_a_template_without_an_end_is_given_one(tokenizer):
    bare = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bare.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    assert bare.decode(encode("chat", Request("Why?"), "So.", "", bare).answer) == "[So.]<|im_end|>"


def test_instructions_are_asked_as_chats_and_only_answers_are_learnt_their_end_too(folder):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    backbone, data = loaded(planned(folder, "task=instruct"))
    end = backbone.tokenizer.eos_token_id
    assert padding_id(backbone) == end  # the trap: what masks padding by its id also masks the end
    rows = [data.train[number] for number in range(3)]
    batch = DataCollatorForLanguageModeling(padding_id(backbone))(
        [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    )
    for row, ids, labels, attended in zip(rows, *(batch[name] for name in batch), strict=True):
        length, begin = len(row["input_ids"]), sum(label == IGNORED for label in row["labels"])
        text = backbone.tokenizer.decode(ids[:begin])
        assert text.startswith("<|im_start|>user\n") and text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert text.count("<|im_start|>") == 2  # the beginning is not doubled
        assert labels[begin:length].tolist() == ids[begin:length].tolist()
        assert labels[length - 1] == end and attended[length - 1] == 1
        assert set(labels[:begin].tolist()) == {IGNORED}
        assert set(labels[length:].tolist()) <= {IGNORED} and not attended[length:].any()


def test_preference_pairs_are_asked_as_chats_and_both_answers_end(folder):
    backbone, data = loaded(planned(folder, "task=dpo"))
    end = backbone.tokenizer.eos_token_id
    for row in data.train:
        text = backbone.tokenizer.decode(row["prompt_ids"])
        assert text.startswith("<|im_start|>user\n") and "<|im_start|>assistant\n" in text
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == end
        assert row["chosen_ids"].count(end) == row["rejected_ids"].count(end) == 1


def test_mt_bench_asks_as_the_task_did(tokenizer):
    tasks = [{"template": "chat"}, {"template": "alpaca"}, {}]
    assert [template_of(task) for task in tasks] == ["chat", "alpaca", "alpaca"]
    ids = dialogue(answer_settings("chat", CONF / "mt_bench"), tokenizer, ("Why?", "And?"), ["So."])
    again = "So.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == ASKED + again


def test_a_model_of_another_kind_keeps_the_templates_of_its_tasks():
    templates = [
        make_plan([f"task={task}"], False, CONF).specs[0].settings.task["template"] for task in ("instruct", "dpo")
    ]
    assert templates == ["alpaca", "plain"]


@pytest.mark.parametrize("name", ["lora", "lorta", "vera", "loretta_rep"])
def test_a_merged_adapter_is_a_plain_folder_with_tied_embeddings(folder, tokenizer, name, tmp_path):
    spec = planned(folder, "task=instruct", f"adapter={name}", "rank=4")
    backbone = load_causal_lm(find_model(spec.settings.model), "fp32")
    model = spec.adapter.attach(backbone, "CAUSAL_LM").eval()
    ids = tokenizer(ASKED, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
        adapted = model(input_ids=ids).logits
    assert (adapted - before).abs().max() > 0.1
    model.merge_and_unload().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert torch.equal(again.lm_head.weight, backbone.model.lm_head.weight)
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-4)
    harness = HFLM(pretrained=str(tmp_path), device="cpu", batch_size=1)
    request = Instance("loglikelihood", {}, ("Why?", " So."), 0)  # lm_eval counts white space at a context's end too
    ((likelihood, _),) = harness.loglikelihood([request], disable_tqdm=True)
    context, whole = (tokenizer(text, return_tensors="pt")["input_ids"][0] for text in ("Why?", "Why? So."))
    with torch.no_grad():
        each = again(input_ids=whole[None]).logits[0, :-1].log_softmax(-1).gather(1, whole[1:, None])
    assert likelihood == pytest.approx(float(each[len(context) - 1 :].sum()), rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_greedy_answers_do_not_depend_on_what_else_is_in_the_batch(folder, precision):
    backbone = load_causal_lm(find_model(planned(folder, "task=instruct").settings.model), "fp32")
    tokenizer = backbone.tokenizer
    questions = ("Why?", "Why not, then, and who was it that asked?", "And the cat?")
    prompts = [encode("chat", Request(text), "", "", tokenizer).prompt for text in questions]
    alone, together = (
        write(backbone.model, tokenizer, prompts, Generation(max_new_tokens=6, batch_size=size), precision)
        for size in (1, 3)
    )
    assert [one.text for one in alone] == [one.text for one in together]
    assert len({one.text for one in alone}) > 1
