#!/usr/bin/env bash
# A method of your own in one YAML file, in any folder: bash examples/own_adapter.sh [FOLDER]
set -euo pipefail
folder=${1:-own_methods}
mkdir -p "$folder/adapter" && cp examples/own_adapter.yaml "$folder/adapter/"   # this is the registration
"${PYTHON:-.venv/bin/python}" run.py --conf "$folder" -m adapter=own_adapter,lora rank=2 task=glue/rte trainer=smoke
