#!/usr/bin/env bash
# Each call of statsmodels' multipletests collects all garbage of the process: its cost is that of the program around it.
#
# Versions: Python 3.11, numpy 2.4.6, scipy 1.17.1, pandas 3.1.1, statsmodels 0.15.0.
# Expected: correcting three p values takes microseconds, whatever else the process holds: the documentation names no
#   effect beside the result.
# Behaviour: the function calls gc.collect() each time, a full collection, also where the collector was disabled. In a
#   process with a million small objects a call costs thousands of times the arithmetic; a simulation of some thousand
#   studies beside loaded libraries spends its time there. gc.freeze() before the calls avoids it.
# Output seen (the times differ from machine to machine):
#   20 calls, 20 full collections, with the collector disabled
#   a call beside 1,000,000 lists takes more than 10 times that of one after gc.freeze(): True
# Exit status: 0 while it is so, another when it has changed.

set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
  numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 statsmodels==0.15.0 formulaic==1.2.2 interface_meta==2.0.1 narwhals==2.29.0 \
  packaging==26.3 patsy==1.0.3 python-dateutil==4.0.0 six==1.17.0 typing_extensions==4.16.0 wrapt==2.5.2
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import gc
import sys
import time

from statsmodels.stats.multitest import multipletests

full = []
gc.callbacks.append(lambda phase, info: full.append(1) if phase == "start" and info["generation"] == 2 else None)


def seconds(calls):
    begun = time.process_time()
    for _ in range(calls):
        multipletests([0.01, 0.02, 0.5], method="holm")
    return (time.process_time() - begun) / calls


gc.disable()
seconds(20)
collections = len(full)
print(f"20 calls, {collections} full collections, with the collector disabled")
heap = [[number] for number in range(1_000_000)]
beside = seconds(5)
gc.freeze()
slower = beside > 10 * seconds(5)
print(f"a call beside {len(heap):,} lists takes more than 10 times that of one after gc.freeze(): {slower}")
sys.exit(None if collections == 20 and slower else "changed: a call collects no garbage")
PY
