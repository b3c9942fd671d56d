#!/usr/bin/env bash
# lm_eval parses targets that look like Python: a model that gives every right answer scores 0, or 1 in another order.
#
# Versions: Python 3.11, torch 2.13.0, lm_eval 0.4.13, datasets 5.2.0.
# Expected: `doc_to_target: "{{answer}}"` gives the text of the column `answer`, as `doc_to_target: answer` does: the
#   harness documents the field as a Jinja template, a column or a function for the desired output.
# Behaviour: what a template rendered is parsed when it looks like Python. A text in square brackets becomes a list; and
#   where that happens to the first row, every row is taken to have several right answers, so that "Paris" stands for
#   "P", "a", "r", "i" and "s". The order of the rows decides. In a multiple_choice task a text of digits becomes an
#   index, also where the choices are numbers as texts: of the choices 2, 3, 4 the target "2" means "4". A column's name
#   without braces is left alone. The model that is scored here gives each right answer.
# Output seen:
#   generate_until  doc_to_target "answer"                      exact_match 1.00
#   generate_until  doc_to_target "{{answer}}"                  exact_match 0.00
#   generate_until  doc_to_target "{{answer}}", other row first exact_match 1.00
#   multiple_choice doc_to_target "answer"                      acc 1.00
#   multiple_choice doc_to_target "{{answer}}"                  acc 0.33
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install torch==2.13.0
install --no-deps lm_eval==0.4.13 evaluate==0.4.6 rouge_score==0.1.2 sacrebleu==2.6.0 scikit-learn==1.9.1 \
  sqlitedict==2.1.0 pytablewriter==0.38.0 word2number==1.1 more-itertools==11.2.1 absl-py==2.5.1 nltk==3.10.4 \
  portalocker==4.4.2 colorama==0.4.6 tabulate==0.10.0 lxml==6.1.3 scipy==1.17.1 joblib==1.6.0 \
  threadpoolctl==3.8.0 narwhals==2.29.0 requests==2.34.2 urllib3==2.8.0 charset-normalizer==3.5.2 \
  DataProperty==0.37.0 mbstrdecoder==1.1.5 chardet==6.0.0.post1 pathvalidate==3.3.1 tabledata==0.0.26 \
  typepy==0.3.1 pytz==2026.6 tzdata==2026.6 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 python-dateutil==4.0.0 \
  six==1.17.0 dill==0.4.1 multiprocess==0.70.19 xxhash==4.1.0 peft==0.21.2 accelerate==1.15.0 psutil==7.2.2 \
  transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 \
  packaging==26.3 PyYAML==6.0.3 regex==2026.11.15 tqdm==4.70.1 typer==0.29.2 annotated-doc==0.0.7 \
  shellingham==1.5.4 rich==15.0.0 markdown-it-py==4.3.0 mdurl==0.1.2 Pygments==2.21.0 click==8.5.1 \
  pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 httpx2==2.16.2 \
  httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import logging
import sys
from pathlib import Path

import datasets
import lm_eval
from lm_eval.api.model import LM

datasets.disable_progress_bars()
logging.disable(logging.WARNING)


class Perfect(LM):
    '''Gives each row's answer, and finds it the likeliest of the choices.'''

    def generate_until(self, requests):
        return [request.doc["answer"] for request in requests]

    def loglikelihood(self, requests):
        return [(0.0 if request.args[1].strip() == request.doc["answer"] else -9.0, True) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


texts = [
    dict(question="A list that holds only the third prime?", answer="[5]"),
    dict(question="Both roots of x*x - 3*x + 2?", answer="[1, 2]"),
    dict(question="The capital of France?", answer="Paris"),
]
numbers = [
    dict(question="1 + 1 =", choices=["2", "3", "4"], answer="2"),
    dict(question="1 + 2 =", choices=["3", "0", "1"], answer="3"),
    dict(question="0 + 1 =", choices=["0", "1", "2"], answer="1"),
]


def score(name, rows, target, kind, metric, **options):
    data = Path(f"{name}.jsonl").resolve()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = dict(task=name, dataset_path="json", dataset_kwargs=dict(data_files={"test": str(data)}), test_split="test",
                output_type=kind, doc_to_text="{{question}}", doc_to_target=target,
                metric_list=[dict(metric=metric, aggregation="mean", higher_is_better=True)], **options)
    results = lm_eval.simple_evaluate(model=Perfect(), tasks=[task], bootstrap_iters=0, verbosity="ERROR")
    return results["results"][name][f"{metric},none"]


lines = {
    'generate_until  doc_to_target "answer"                      exact_match':
        score("column", texts, "answer", "generate_until", "exact_match"),
    'generate_until  doc_to_target "{{answer}}"                  exact_match':
        score("template", texts, "{{answer}}", "generate_until", "exact_match"),
    'generate_until  doc_to_target "{{answer}}", other row first exact_match':
        score("reversed", texts[::-1], "{{answer}}", "generate_until", "exact_match"),
    'multiple_choice doc_to_target "answer"                      acc':
        score("choice_column", numbers, "answer", "multiple_choice", "acc", doc_to_choice="choices"),
    'multiple_choice doc_to_target "{{answer}}"                  acc':
        score("choice_template", numbers, "{{answer}}", "multiple_choice", "acc", doc_to_choice="choices"),
}
for line, value in lines.items():
    print(f"{line} {value:.2f}")
same = all(abs(value - seen) < 0.01 for value, seen in zip(lines.values(), (1, 0, 1, 1, 1 / 3), strict=True))
sys.exit(None if same else "changed: the scores are not 1, 0, 1, 1 and 1/3")
PY
