#!/usr/bin/env bash
# Dataset.map returns the old result after its function was edited, if the function is imported from a module.
#
# Versions: Python 3.11, datasets 5.2.0, dill 0.4.1. No torch.
# Expected: an edited function is run again. The documentation's page on the cache says that the function given to map
#   is hashed with all the variables that it uses, and that a change of any object used changes the hash.
# Behaviour: a function of the main script is hashed by its code, one of an imported module by its name. An edit leaves
#   the name as it was, and the next process prints the result of the old code, as a cached one, without a word. A
#   lambda around the function helps half: then the numbers of the module are part of the hash, its functions' code is
#   not.
# Output seen (three processes, a = 0 1 2; the module is edited between them):
#   b = a + K, K = 1:   imported 1 2 3, in a lambda 1 2 3, in the script 1 2 3
#   b = a + K, K = 100: imported 1 2 3, in a lambda 100 101 102, in the script 100 101 102
#   b = 1000 * a:       imported 1 2 3, in a lambda 1 2 3, in the script 0 1000 2000
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
for i in 0 1 2; do echo "{\"a\": $i}"; done > rows.jsonl
cat > main.py <<'PY'
import datasets
import preparation

datasets.disable_progress_bars()
rows = datasets.load_dataset("json", data_files="rows.jsonl", split="train")
exec(open("preparation.py").read())
print("imported", *rows.map(preparation.prepare)["b"], end=", in a lambda ")
print(*rows.map(lambda row: preparation.prepare(row))["b"], end=", in the script ")
print(*rows.map(prepare)["b"])
PY
run() {
  printf 'K = %s\n\n\ndef prepare(row):\n    return {"b": %s}\n' "$2" "$3" > preparation.py
  printf '%-19s ' "$1"
  "$folder/venv/bin/python" -B main.py
}
{
  run "b = a + K, K = 1:" 1 'row["a"] + K'
  run "b = a + K, K = 100:" 100 'row["a"] + K'
  run "b = 1000 * a:" 1 '1000 * row["a"]'
} | tee seen
grep -q 'K = 100: imported 1 2 3, in a lambda 100 101 102, in the script 100 101 102$' seen &&
  grep -q 'b = 1000 \* a: *imported 1 2 3, in a lambda 1 2 3, in the script 0 1000 2000$' seen ||
  { echo "changed: other results are cached" >&2; exit 1; }
