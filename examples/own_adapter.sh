#!/usr/bin/env bash
# A method of your own in one YAML file: bash examples/own_adapter.sh
set -euo pipefail
cp examples/own_adapter.yaml conf/adapter/own_adapter.yaml    # this is the registration
"${PYTHON:-.venv/bin/python}" run.py -m adapter=own_adapter,lora rank=2 task=glue/rte trainer=smoke
