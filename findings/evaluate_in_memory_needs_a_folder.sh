#!/usr/bin/env bash
# A metric of `evaluate` that keeps everything in memory still makes a folder, and fails where it cannot.
#
# Versions: Python 3.11, evaluate 0.4.6, datasets 5.2.0. No torch.
# Expected: with keep_in_memory=True, documented as storing all predictions and references in memory, a metric writes
#   nothing, and so works where the home folder cannot be written, as in many containers.
# Behaviour: the metric's object makes HF_HOME/metrics/NAME/CONFIGURATION when it is built, before it looks at
#   keep_in_memory, and leaves it empty for ever. Where that fails, so does the metric: OSError. A program that builds
#   its metric when it is needed learns of this after the training. Here a file stands in HF_HOME's place, since a
#   superuser may write into a folder that is read-only.
# Output seen:
#   keep_in_memory=True, HF_HOME can be made:    {'right': 2}, left behind: metrics metrics/right metrics/right/default
#   keep_in_memory=True, HF_HOME cannot be made: NotADirectoryError
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install --no-deps evaluate==0.4.6 requests==2.34.2 urllib3==2.8.0 charset-normalizer==3.5.2 datasets==5.2.0 \
  pyarrow==26.0.1 pandas==3.1.1 python-dateutil==4.0.0 six==1.17.0 dill==0.4.1 multiprocess==0.70.19 \
  xxhash==4.1.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 PyYAML==6.0.3 tqdm==4.70.1 \
  click==8.5.1 filelock==4.2.11 fsspec==2026.9.0 typing_extensions==4.16.0 httpx2==2.16.2 httpcore2==2.16.2 \
  h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import shutil
import sys
from pathlib import Path

import datasets
import evaluate

home = Path(os.environ["HF_HOME"])
numbers = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})


class Right(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=numbers)

    def _compute(self, predictions, references):
        return {"right": sum(a == b for a, b in zip(predictions, references, strict=True))}


def scored():
    try:
        return str(Right(keep_in_memory=True).compute(predictions=[1, 2, 3], references=[1, 2, 4]))
    except OSError as error:
        return type(error).__name__


shutil.rmtree(home, ignore_errors=True)
writable = scored()
left = " ".join(sorted(str(path.relative_to(home)) for path in home.rglob("*")))
print(f"keep_in_memory=True, HF_HOME can be made:    {writable}, left behind: {left}")
shutil.rmtree(home, ignore_errors=True)
home.touch()
refused = scored()
print(f"keep_in_memory=True, HF_HOME cannot be made: {refused}")
same = writable == "{'right': 2}" and left == "metrics metrics/right metrics/right/default" and "Error" in refused
sys.exit(None if same else "changed: no folder is made, or it is not needed")
PY
