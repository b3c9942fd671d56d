#!/usr/bin/env bash
# transformers' is_wandb_available() does not look whether wandb is installed, it imports it; TRL asks at each import.
#
# Versions: Python 3.11, transformers 5.23.0, wandb 0.31.0.
# Expected: a question such as is_wandb_available() leaves the process as it was, as is_mlflow_available() and
#   is_tensorboard_available() beside it do: they look for the package. Whoever sends nothing (report_to="none",
#   WANDB_MODE=disabled) has no wandb in memory.
# Behaviour: the question imports wandb with some hundreds of modules, whatever the settings are. TRL 1.16 asks it when
#   trl.trainer.sft_trainer is imported, so each program that trains with TRL pays for it where wandb is installed. Where
#   processes are started for single runs, that is a second each. `sys.modules["wandb"] = None` before the
#   first import avoids it: the question is then answered with False.
# Output seen:
#   is_mlflow_available() imports no module of its package; is_tensorboard_available() none
#   is_wandb_available() imports more than 200 modules of wandb, with WANDB_MODE=disabled: True
#   after sys.modules["wandb"] = None: False
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
  PyYAML==6.0.3 Pygments==2.21.0 annotated-doc==0.0.7 annotated-types==0.8.0 anyio==4.16.0 certifi==2026.10.18 \
  charset-normalizer==3.5.2 click==8.5.1 cwevals==0.0.1b1 distro==1.9.0 filelock==4.2.11 fsspec==2026.9.0 \
  googleapis-common-protos==1.76.0 h11==0.16.0 hf-xet==1.8.0 httpcore2==2.16.2 httpcore==1.0.9 httpx2==2.16.2 \
  httpx==0.28.1 huggingface_hub==2.4.0 idna==3.20 markdown-it-py==4.3.0 mdurl==0.1.2 numpy==2.4.6 \
  opentelemetry-api==1.45.2 opentelemetry-exporter-http-transport==0.66b2 \
  opentelemetry-exporter-otlp-common==0.66b2 opentelemetry-exporter-otlp-proto-common==1.45.2 \
  opentelemetry-exporter-otlp-proto-http==1.45.2 opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2 \
  opentelemetry-semantic-conventions==0.66b2 packaging==26.3 platformdirs==4.14.7 protobuf==7.36.2 \
  pydantic==2.14.3 pydantic_core==2.50.4 regex==2026.11.15 requests==2.34.2 rich==15.0.0 safetensors==0.8.0 \
  shellingham==1.5.4 sniffio==1.3.1 tokenizers==0.23.3 tqdm==4.70.1 transformers==5.23.0 truststore==0.10.5 \
  typer==0.29.2 typing-inspection==0.4.5 typing_extensions==4.16.0 urllib3==2.8.0 wandb==0.31.0 xxhash==4.1.0
cd "$folder"
export WANDB_MODE=disabled
"$folder/venv/bin/python" - <<'PY'
import subprocess
import sys

ASK = """
import sys
{before}
from transformers.integrations import integration_utils
before = set(sys.modules)
answer = integration_utils.is_{name}_available()
print(answer, sum(module.split(".")[0] == "{name}" for module in set(sys.modules) - before))
"""


def asked(name, before=""):
    code = ASK.format(name=name, before=before)
    answer, modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return answer == "True", int(modules)


_, mlflow = asked("mlflow")
_, tensorboard = asked("tensorboard")
print(f"is_mlflow_available() imports {mlflow or 'no'} module of its package; is_tensorboard_available() {tensorboard or 'none'}")
there, modules = asked("wandb")
print(f"is_wandb_available() imports more than 200 modules of wandb, with WANDB_MODE=disabled: {there and modules > 200}")
forbidden, none = asked("wandb", 'sys.modules["wandb"] = None')
print(f'after sys.modules["wandb"] = None: {forbidden}')
as_seen = (mlflow, tensorboard) == (0, 0) and there and modules > 200 and not forbidden and none == 0
sys.exit(None if as_seen else "changed: asking for wandb does not import it")
PY
