#!/usr/bin/env bash
# A task of your own: data files and one YAML file: bash examples/own_task.sh [FOLDER for the data]
set -euo pipefail
python=${PYTHON:-.venv/bin/python} data=${1:-own_data}
"$python" examples/own_task.py "$data"                        # FOLDER/glue/vehicles/{train,validation}.jsonl
cp examples/own_task.yaml conf/task/glue/vehicles.yaml        # this is the registration
"$python" run.py task=glue/vehicles data.root="$data" trainer=smoke
