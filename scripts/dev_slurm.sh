#!/usr/bin/env bash
# A Slurm cluster of this one machine, in a folder of its own, to try hydra/launcher=slurm and to test it.
#   scripts/dev_slurm.sh install          Debian's packages, as root
#   scripts/dev_slurm.sh start [FOLDER]   prints the line to `eval`; default: a new folder; several may run at once
#   scripts/dev_slurm.sh stop FOLDER      jobs, daemons and, where `start` made it, the folder
# Ports of controller and node: SLURM_DEV_PORTS="16817 16818"; default: two free ones.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
PACKAGES="slurmctld slurmd slurm-client munge"
fail() { echo "dev_slurm: $*" >&2; exit 1; }

install_packages() {
  [ "$(id -u)" = 0 ] || fail "installing needs root: sudo $0 install (apt-get install $PACKAGES)"
  command -v apt-get >/dev/null || fail "no apt-get here; install Slurm and munge in your system's way"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $PACKAGES
}

free_ports() {
  python3 -c 'import socket; a, b = (socket.create_server(("", 0)) for _ in "ab")
print(a.getsockname()[1], b.getsockname()[1])'
}

write_settings() { # cred_expire: how long a requeued job waits before it starts again, 120 s by default
  read -r controller node <<<"${SLURM_DEV_PORTS:-$(free_ports)}"
  cat >"$1/slurm.conf" <<END
ClusterName=dev
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthInfo=socket=$1/munge.socket,cred_expire=5
SchedulerParameters=sched_interval=1,bf_interval=1
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd.log
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd.pid
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemT/ {print int($2/1024)}' /proc/meminfo)
PartitionName=debug Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP
END
}

start() {
  command -v slurmctld slurmd munged >/dev/null || fail "slurmctld, slurmd or munged is missing: $0 install"
  folder=${1:-$(mktemp -d "${TMPDIR:-/tmp}/dev_slurm.XXXXXX")}
  mkdir -p "$folder/state" "$folder/spool" && folder=$(cd "$folder" && pwd)
  [ -n "$1" ] || touch "$folder/made_by_start"
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
  write_settings "$folder"
  export SLURM_CONF=$folder/slurm.conf
  slurmctld && slurmd
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ] || { echo "export SLURM_CONF=$SLURM_CONF"; return; }
    sleep 0.2
  done
  fail "the node is not idle after 20 s; see $folder/*.log, then: $0 stop $folder"
}

stop() {
  compgen -G "$1/*.pid" >/dev/null || fail "no cluster runs in '$1'; say which: $0 stop FOLDER"
  pids=$(cat "$1"/*.pid) && export SLURM_CONF=$1/slurm.conf
  scancel --full --signal=KILL --user="$(id -un)" && scancel --user="$(id -un)" && scontrol shutdown || kill $pids
  kill "$(cat "$1/munged.pid")" || true
  for _ in $(seq 100); do compgen -G "$1/*.pid" >/dev/null || break; sleep 0.1; done # each daemon removes its own
  sleep 0.2 && kill -KILL $pids 2>/dev/null || true # slurmd may hang behind that
  for step in $(pgrep -x slurmstepd); do # it waits, with its job, for a controller that is gone
    ! grep -qz "^SLURM_CONF=$SLURM_CONF$" "/proc/$step/environ" || pkill -KILL -s "$(ps -o sid= -p "$step" | tr -d ' ')"
  done
  [ ! -e "$1/made_by_start" ] || rm -rf "$1"
}

case ${1:-} in
  install) install_packages ;;
  start | stop) "$1" "${2:-}" ;;
  *) sed -n '2,6s/^# //p' "$0" && exit 2 ;;
esac
