#!/usr/bin/env bash
# A row for which the function of Dataset.map returns None is lost, or takes the other rows' results with it.
#
# Versions: Python 3.11, datasets 5.2.0, pyarrow 26.0.1. No torch.
# Expected: map's documentation says that a function which returns None is run, and the dataset returned unchanged. For
#   a function that returns None for some rows one expects these rows unchanged, or an error.
# Behaviour: the last value decides for all. None for the first row: AttributeError about a file that was never opened.
#   For a row in the middle: the row is gone. For the last row: the results of all rows are dropped and the dataset
#   comes back as it was. With two processes the same function gives another answer: each share of the rows counts for
#   itself.
# Output seen (rows a = 1, 2, 3, 4; the function returns b = a, but None for the row that is named):
#   None for row 1:                AttributeError
#   None for row 2:                a = 1 3 4, b = 1 3 4
#   None for row 4:                a = 1 2 3 4, no b
#   None for row 4, two processes: a = 1 2 3 4, b = 1 2 None None
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
import sys

import datasets

datasets.disable_progress_bars()
table = datasets.Dataset.from_dict({"a": [1, 2, 3, 4]})


def result(none_for, **options):
    try:
        mapped = table.map(lambda row: None if row["a"] == none_for else {"b": row["a"]}, **options)
    except Exception as error:
        return type(error).__name__
    columns = {name: " ".join(str(value) for value in mapped[name]) for name in mapped.column_names}
    return f"a = {columns['a']}, " + (f"b = {columns['b']}" if "b" in columns else "no b")


seen = {
    "None for row 1:": (result(1), "AttributeError"),
    "None for row 2:": (result(2), "a = 1 3 4, b = 1 3 4"),
    "None for row 4:": (result(4), "a = 1 2 3 4, no b"),
    "None for row 4, two processes:": (result(4, num_proc=2), "a = 1 2 3 4, b = 1 2 None None"),
}
for title, (value, _) in seen.items():
    print(f"{title:30s} {value}")
sys.exit(None if all(value == before for value, before in seen.values()) else "changed: other rows or columns are lost")
PY
