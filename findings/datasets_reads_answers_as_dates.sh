#!/usr/bin/env bash
# load_dataset("json") turns text that looks like a date into datetime objects, and drops its time zone.
#
# Versions: Python 3.11, datasets 5.2.0, pyarrow 26.0.1. No torch.
# Expected: JSON (RFC 8259) has no dates: a string in the file is a string in the rows.
# Behaviour: where all strings of a column look like ISO dates or times, the column becomes timestamp[s], and rows hold
#   datetime.datetime. A formatted prompt then says "2019-05-06 00:00:00" where the file says "2019-05-06", an exact
#   match fails, and "Z" is lost. One other string in the same block makes them all strings again, so that two files of
#   one form can get two types.
# Output seen:
#   "2019-05-06", "2020-01-01":            timestamp[s], first answer 2019-05-06 00:00:00
#   "2019-05-06T10:00:00Z" and its like:   timestamp[s], first answer 2019-05-06 10:00:00
#   "2019-05-06", "in spring":             string, first answer 2019-05-06
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install --no-deps datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 python-dateutil==4.0.0 six==1.17.0 dill==0.4.1 \
  multiprocess==0.70.19 xxhash==4.1.0 huggingface_hub==2.4.0 hf-xet==1.8.0 numpy==2.4.6 packaging==26.3 \
  PyYAML==6.0.3 tqdm==4.70.1 click==8.5.1 filelock==4.2.11 fsspec==2026.9.0 typing_extensions==4.16.0 \
  httpx2==2.16.2 httpcore2==2.16.2 h11==0.16.0 anyio==4.16.0 idna==3.20 certifi==2026.10.18 truststore==0.10.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import sys
from pathlib import Path

import datasets

datasets.disable_progress_bars()
columns = {
    '"2019-05-06", "2020-01-01":': (["2019-05-06", "2020-01-01"], "2019-05-06 00:00:00"),
    '"2019-05-06T10:00:00Z" and its like:': (["2019-05-06T10:00:00Z", "2020-01-01T10:00:00Z"], "2019-05-06 10:00:00"),
    '"2019-05-06", "in spring":': (["2019-05-06", "in spring"], "2019-05-06"),
}
same = True
for number, (title, (answers, expected)) in enumerate(columns.items()):
    path = Path(f"{number}.jsonl")
    path.write_text("".join(json.dumps({"question": "When?", "answer": answer}) + "\n" for answer in answers))
    rows = datasets.load_dataset("json", data_files=str(path), split="train")
    first = rows[0]["answer"]
    print(f"{title:38s} {rows.features['answer'].dtype}, first answer {first}")
    same &= str(first) == expected and isinstance(first, str) == (number == 2)
sys.exit(None if same else "changed: other types are read")
PY
