#!/usr/bin/env bash
# One table of the paper, from nothing: runs what is missing, collects, and renders tables, figures and a page.
#   scripts/reproduce.sh --list                          tables, their recipes, and what each needs
#   scripts/reproduce.sh glue_base [KEY=VALUE ...]       at the paper's size, for a GPU
#   scripts/reproduce.sh tiny/glue_base                  a small variant, for two CPU cores; also minilm/...
# The same command again continues; words are run.py's (data.root=FOLDER, runtime.workers=4, hydra/launcher=slurm, ...).
# Exit status: run.py's, and 75 when runs are still to end, in a Slurm queue for example.
# Results go to RESULTS (default: results/reproduced), runs to runtime.runs; PYTHON names the interpreter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
results=${RESULTS:-$root/results/reproduced}
fail() { echo "reproduce: $*" >&2; exit 2; }

PYTHON=${PYTHON:-$root/.venv/bin/python}
command -v "$PYTHON" >/dev/null || PYTHON=python
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
lorta() { "$PYTHON" -m lorta "$@"; }

case ${1:-} in
  "" | -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  --list) lorta recipes; exit ;;
  -*) fail "$1: no such option; --list shows the tables, --help says how" ;;
esac
found=$(lorta recipes "$1") || exit 2
read -r recipe tables <<<"$found"
shift
for word in "$@"; do
  case $word in
    experiment=* | runtime.name=* | runtime.results=*) fail "$word: this script sets it; leave it out" ;;
    -*) fail "$word: options come before the table; words are KEY=VALUE" ;;
  esac
done
paths=(lorta baselines experiments conf run.py requirements.lock)   # as lorta/system/provenance.py
changed=$(git -C "$root" status --porcelain -- "${paths[@]}" 2>/dev/null || true)
[ -z "$changed" ] || fail "the code has uncommitted changes, and tables refuse such runs: commit or stash them first"

name=${recipe//\//_}   # of all files; lorta/glue_base and tiny/glue_base are two suites
words=(-m "experiment=$recipe" "$@" "runtime.name=$name" "runtime.results=$results")
status=0
"$PYTHON" "$root/run.py" "${words[@]}" || status=$?
[ "$status" -le 1 ] || exit "$status"   # 2: wrong words; 75: asked to leave; 1: some runs failed, the rest is shown

state=$(lorta status "${words[@]}" | head -n 1)
case $state in
  *running* | *pending* | *missing*) echo "$recipe: $state; the same command renders it when all have ended"; exit 75 ;;
esac
lorta collect "${words[@]}" --results "$results" || exit
records=$(ls -t "$results/records/$name".jsonl* | head -n 1)
lorta table --records "$records" --results "$results" --formats png,pdf >/dev/null
for table in $tables; do
  lorta table paper=lorta "table=$table" --records "$records" --results "$results" --name "$name.$table" >/dev/null
done
lorta report --records "$records" --results "$results" --to "$results/pages/$name.html"
echo "$recipe: $state"
echo "tables  $results/reports/$name.md and, beside the paper's numbers, $name.{${tables// /,}}.md"
echo "figures $results/figures/$name*.png    page $results/pages/$name.html"
exit "$status"
