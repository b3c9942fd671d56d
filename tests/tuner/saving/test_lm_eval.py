"""lm-evaluation-harness loads a saved adapter with its option `peft`, offline, in a process that imported the tuner."""

import json

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PeftModel, get_peft_model

from lorta.tuner import LortaConfig, LortaModel
from tests.tuner.in_use.tiny_tokenizer import tiny_tokenizer

TASK = """
task: tiny_next_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: perplexity, aggregation: perplexity, higher_is_better: false}}]
"""


@pytest.fixture
def score(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"w{n} w{n + 1}", "answer": f"w{n + 2} w{n + 3}"} for n in range(8)]
    (tmp_path / "rows.json").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(rows=tmp_path / "rows.json"))
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)

    def perplexity(**model):
        evaluated = HFLM(device="cpu", batch_size=4, dtype="float32", **model)
        result = simple_evaluate(evaluated, tasks=["tiny_next_words"], task_manager=manager, bootstrap_iters=0)
        return result["results"]["tiny_next_words"]["perplexity,none"], evaluated.model

    return perplexity


def test_a_saved_adapter_scores_like_the_merged_model_and_unlike_the_base(backbone, randomise, score, tmp_path):
    for name in ("base", "merged"):
        tiny_tokenizer().save_pretrained(tmp_path / name)
    backbone("llama_lm").save_pretrained(tmp_path / "base")
    model = randomise(get_peft_model(backbone("llama_lm"), LortaConfig(r=3, alpha=3.0, task_type="CAUSAL_LM")))
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    plain, _ = score(pretrained=str(tmp_path / "base"))
    adapted, evaluated = score(pretrained=str(tmp_path / "base"), peft=str(tmp_path / "adapter"))
    merged, _ = score(pretrained=str(tmp_path / "merged"))
    assert isinstance(evaluated, PeftModel) and isinstance(evaluated.base_model, LortaModel)
    assert adapted == pytest.approx(merged, rel=1e-5)
    assert abs(adapted / plain - 1) > 0.05
