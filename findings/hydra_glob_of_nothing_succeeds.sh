#!/usr/bin/env bash
# A Hydra sweep whose glob matches nothing runs nothing and exits with 0; the same misspelling without glob fails.
#
# Versions: Python 3.11, hydra-core 1.3.8, omegaconf 2.3.1. No torch.
# Expected: a choice that a config group does not have is an error. Hydra's documentation of the override grammar says
#   that glob selects from the options of a group; `model=lorra` stops with a list of the options.
# Behaviour: `model=glob(lorra*)`, a misspelling, gives an empty list of options, and a sweep is the product of its
#   lists: "Launching 0 jobs", exit status 0. It takes all others with it: of seed=1,2,3 none runs either. The same
#   happens with a glob over a key that is no group at all. A script that looks at the status takes the sweep for done.
# Output seen:
#   model=lora,full seed=1,2,3                    6 jobs, exit status 0
#   model=glob(l*) seed=1,2,3                     3 jobs, exit status 0
#   model=lorra seed=1,2,3                        0 jobs, exit status 1
#   model=glob(lorra*) seed=1,2,3                 0 jobs, exit status 0
#   model=glob([l*,nosuch]) seed=1,2,3            3 jobs, exit status 0
#   seed=glob(*)                                  0 jobs, exit status 0
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONWARNINGS=ignore
python3.11 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }
install --no-deps hydra-core==1.3.8 omegaconf==2.3.1 antlr4-python3-runtime==4.9.3 PyYAML==6.0.3 packaging==26.3
cd "$folder"
mkdir -p conf/model
printf 'defaults: [model: lora, _self_]\nseed: 0\n' > conf/config.yaml
echo 'name: lora' > conf/model/lora.yaml
echo 'name: full' > conf/model/full.yaml
cat > main.py <<'PY'
import hydra


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config):
    print("job", config.model.name, config.seed)


main()
PY
sweep() {
  local status=0
  "$folder/venv/bin/python" main.py --multirun "$@" > output 2>&1 || status=$?
  printf '%-45s %s jobs, exit status %s\n' "$*" "$(grep -c '^job' output || true)" "$status"
}
{
  sweep model=lora,full seed=1,2,3
  sweep 'model=glob(l*)' seed=1,2,3
  sweep model=lorra seed=1,2,3
  sweep 'model=glob(lorra*)' seed=1,2,3
  sweep 'model=glob([l*,nosuch])' seed=1,2,3
  sweep 'seed=glob(*)'
} | tee seen
[ "$(sed 's/.* \([0-9]*\) jobs, exit status /\1:/' seen | tr '\n' ' ')" = "6:0 3:0 0:1 0:0 3:0 0:0 " ] ||
  { echo "changed: an empty glob is treated otherwise" >&2; exit 1; }
