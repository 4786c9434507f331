#!/usr/bin/env bash
# A real SLURM on one machine, for tests: Debian packages, run as root, no systemd, no cgroups, loopback only.
#
#   slurm/local_cluster.sh up       install what is missing, configure, start; safe to repeat
#   slurm/local_cluster.sh status   daemons and nodes; exit 0 only when jobs can run
#   slurm/local_cluster.sh kick     start requeued jobs in 3 s (SLURM holds them for 120 s)
#   slurm/local_cluster.sh stop     stop the daemons this script started
#   slurm/local_cluster.sh wipe     stop, then remove state, logs, database and configuration
#
# Settings, from the environment:
#   NODES=2           virtual nodes node1, node2, ... (slurmd -N)
#   CPUS=4 MEMORY=16000   CPUs and MB every node claims, whatever the machine has
#   GPUS=2            fake GPUs (null devices) per node; CUDA_VISIBLE_DEVICES is set as on a real one
#   USER_SIGNAL=1     preemption sends the job's own signal; 0: SIGTERM, SLURM's default
#   ROOT=/var/lib/crossdiff-slurm   everything but /etc/slurm and /run/munge
#
# Partitions: main (default), low (evicted by high after 15 s), high, closed (refuses jobs).
set -euo pipefail
NODES=${NODES:-2} CPUS=${CPUS:-4} MEMORY=${MEMORY:-16000} GPUS=${GPUS:-2} USER_SIGNAL=${USER_SIGNAL:-1}
ROOT=${ROOT:-/var/lib/crossdiff-slurm}
HOST=$(hostname -s)
CONF=/etc/slurm RUN=$ROOT/run LOG=$ROOT/log SOCKET=$ROOT/run/mysql/mysqld.sock
CHANGED=0
MARK="# written by crossdiff slurm/local_cluster.sh"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

say() { printf '[cluster %3ss] %s\n' "$SECONDS" "$*"; }
fail() { echo "error: $*" >&2; exit 1; }

alive() { # alive PIDFILE: the process is there and is one of ours
  local pid
  pid=$(cat "$1" 2>/dev/null) && [[ -n $pid ]] &&
    grep -qE '^(munged|mariadbd|slurmdbd|slurmctld|slurmd)' "/proc/$pid/comm" 2>/dev/null
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
  local seconds=$1 what=$2
  shift 2
  for ((i = 0; i < seconds * 5; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  fail "$what did not come up within $seconds s; see $LOG"
}

stop_daemon() { # stop_daemon PIDFILE
  alive "$1" || return 0
  kill "$(cat "$1")"
  for ((i = 0; i < 100; i++)); do alive "$1" || break; sleep 0.2; done
  rm -f "$1"
}

check_machine() {
  [[ $(id -u) == 0 ]] || fail "needs root, to install packages and to start jobs as their users"
  command -v apt-get >/dev/null || fail "needs Debian or Ubuntu (apt-get)"
  [[ ! -s $CONF/slurm.conf ]] || grep -qF "$MARK" $CONF/slurm.conf ||
    fail "$CONF/slurm.conf was not written by this script; a cluster of your own is not touched"
}

install_packages() {
  local wanted=(slurmctld slurmd slurm-client slurmdbd mariadb-server munge) missing=()
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} == 0 ]] && return 0
  say "installing ${missing[*]}"
  # packages must not start their services here: there is no init
  [[ -e /usr/sbin/policy-rc.d ]] ||
    { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
  apt-get update -qq || true
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$LOG/apt.log" 2>&1 ||
    { tail -20 "$LOG/apt.log" >&2; fail "apt-get could not install ${missing[*]}"; }
}

make_folders() {
  install -d "$ROOT" "$RUN" "$LOG"
}

own_folders() { # once the packages have made their users
  install -d -o slurm -g slurm "$ROOT/state"
  chown slurm: "$LOG" "$RUN"
  for ((i = 1; i <= NODES; i++)); do install -d "$ROOT/spool/node$i"; done
}

put() { # put FILE MODE OWNER: install standard input as FILE, and remember that something changed
  local fresh
  fresh=$(mktemp)
  cat >"$fresh"
  if ! cmp -s "$fresh" "$1"; then install -m "$2" -o "$3" -g "$3" "$fresh" "$1"; CHANGED=1; fi
  rm -f "$fresh"
}

nodes_conf() {
  for ((i = 1; i <= NODES; i++)); do
    echo "NodeName=node$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((17000 + i)) CPUs=$CPUS" \
      "RealMemory=$MEMORY Gres=gpu:$GPUS State=UNKNOWN"
  done
}

write_slurm_conf() {
  local control=''
  [[ $USER_SIGNAL == 1 ]] && control='SlurmctldParameters=preempt_send_user_signal'
  put $CONF/slurm.conf 0644 root <<CONF
$MARK
ClusterName=crossdiff
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd-%n.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd-%n.log
# no cgroups: /proc tracking, no binding
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
# nodes claim more CPUs and memory than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=500000,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=300
CompleteWait=0
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
MaxArraySize=1001
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStorageTRES=gres/gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$control
$(nodes_conf)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=20 PreemptMode=OFF
PartitionName=closed Nodes=ALL MaxTime=INFINITE State=INACTIVE
CONF
}

write_gpu_conf() {
  install -d "$ROOT/dev"
  for ((i = 0; i < GPUS; i++)); do
    [[ -e $ROOT/dev/gpu$i ]] || mknod -m 666 "$ROOT/dev/gpu$i" c 1 3
  done
  local last=$((GPUS - 1)) files=$ROOT/dev/gpu0
  ((GPUS == 1)) || files="$ROOT/dev/gpu[0-$last]"
  printf '%s\nName=gpu File=%s\n' "$MARK" "$files" | put $CONF/gres.conf 0644 root
  [[ -e $CONF/cgroup.conf ]] || printf '%s\nCgroupPlugin=cgroup/v1\n' "$MARK" >$CONF/cgroup.conf
}

write_accounting_conf() {
  put $CONF/slurmdbd.conf 0600 slurm <<CONF
$MARK
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=slurm
AuthType=auth/munge
PidFile=$RUN/slurmdbd.pid
LogFile=$LOG/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=crossdiff_accounting
CONF
}

start_munge() {
  alive /run/munge/munged.pid && return 0
  # munged insists that every parent folder belongs to root or munge
  install -d -o munge -g munge -m 0755 /run/munge
  install -d -o munge -g munge -m 0700 /etc/munge /var/lib/munge /var/log/munge
  if [[ ! -s /etc/munge/munge.key ]]; then
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
    chown munge: /etc/munge/munge.key && chmod 0400 /etc/munge/munge.key
  fi
  rm -f /run/munge/munge.socket.2*
  setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged --pid-file=/run/munge/munged.pid
  wait_for 10 munge sh -c 'munge -n | unmunge'
}

start_database() {
  alive "$RUN/mysql/mariadbd.pid" && return 0
  say "starting mariadb"
  install -d -o mysql -g mysql -m 0755 "$RUN/mysql" "$ROOT/mysql"
  [[ -d $ROOT/mysql/mysql ]] ||
    mariadb-install-db --no-defaults --user=mysql --datadir="$ROOT/mysql" \
      --auth-root-authentication-method=socket --skip-test-db >"$LOG/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$ROOT/mysql" --socket="$SOCKET" --skip-networking \
    --pid-file="$RUN/mysql/mariadbd.pid" --innodb-buffer-pool-size=64M --innodb-log-file-size=32M \
    --innodb-lock-wait-timeout=900 >"$LOG/mariadbd.log" 2>&1 </dev/null &
  wait_for 60 mariadb mariadb-admin --no-defaults --socket="$SOCKET" ping
  mariadb --no-defaults --socket="$SOCKET" -e "create database if not exists crossdiff_accounting;
    create user if not exists slurm@localhost identified via unix_socket;
    grant all on crossdiff_accounting.* to slurm@localhost;"
}

start_accounting() {
  start_database
  # where libmariadb looks for its socket
  install -d /run/mysqld
  ln -sfn "$SOCKET" /run/mysqld/mysqld.sock
  alive "$RUN/slurmdbd.pid" || { say "starting slurmdbd"; slurmdbd; }
  wait_for 60 slurmdbd sacctmgr -n list cluster
  sacctmgr -n list cluster | grep -q crossdiff || sacctmgr -i add cluster crossdiff >/dev/null
}

usable_nodes() { sinfo -h -N -p main -o '%t' 2>/dev/null | grep -cE '^(idle|mix|alloc)$' || true; }
all_usable() { (($(usable_nodes) >= NODES)); }

start_slurm() {
  # torch.distributed resolves the name of the first node
  for ((i = 1; i <= NODES; i++)); do
    grep -qE "[[:space:]]node$i(\s|\$)" /etc/hosts || echo "127.0.0.1 node$i" >>/etc/hosts
  done
  if ((CHANGED)) && alive "$RUN/slurmctld.pid"; then say "configuration changed: restarting"; stop_slurm; fi
  alive "$RUN/slurmctld.pid" || { say "starting slurmctld"; slurmctld -i; }
  wait_for 60 slurmctld scontrol ping
  for ((i = 1; i <= NODES; i++)); do alive "$RUN/slurmd-node$i.pid" || nice -n 5 slurmd -N "node$i"; done
  # a node stays down after an unclean stop until it is resumed
  sinfo -h -N -p main -o '%N %t' | awk '$2 ~ /drain|drng|down|inval/ {print $1}' | sort -u |
    while read -r node; do scontrol update nodename="$node" state=resume || true; done
  wait_for 60 nodes all_usable
}

stop_slurm() {
  for file in "$RUN"/slurmd-*.pid "$RUN/slurmctld.pid"; do stop_daemon "$file"; done
}

up() {
  check_machine
  make_folders
  install_packages
  own_folders
  write_slurm_conf; write_gpu_conf; write_accounting_conf
  start_munge; start_accounting; start_slurm
  say "up: $(sinfo -h -o '%P %D nodes %T' | tr '\n' ';')"
}

stop() {
  stop_slurm
  for file in "$RUN/slurmdbd.pid" "$RUN/mysql/mariadbd.pid" /run/munge/munged.pid; do stop_daemon "$file"; done
  say "stopped"
}

status() {
  for file in /run/munge/munged.pid "$RUN"/mysql/mariadbd.pid "$RUN"/slurmdbd.pid "$RUN"/slurmctld.pid \
    "$RUN"/slurmd-*.pid; do
    if alive "$file"; then echo "up    $(cat "$file") $file"; else echo "down  $file"; fi
  done
  all_usable || { echo "no usable cluster; start it with: $0 up"; return 1; }
  sinfo -N -o '%N %t %c CPUs %m MB %G %P'
}

kick() { # not at once: slurmd refuses a job that comes back in the second it was killed ("credential revoked")
  local soon=$(($(date +%s) + 5))
  squeue -h -r -t PD -o '%i %r %S' | while read -r job reason start; do
    [[ $reason == BeginTime && $(date -d "$start" +%s 2>/dev/null) -gt $soon ]] || continue
    scontrol update job="$job" StartTime=now+3
  done
}

wipe() {
  stop
  rm -rf "$ROOT"
  for file in slurm.conf gres.conf slurmdbd.conf cgroup.conf; do
    if grep -qsF "$MARK" "$CONF/$file"; then rm -f "$CONF/$file"; fi
  done
}

case ${1:-} in
  up | status | kick | stop | wipe) "$1" ;;
  *) sed -n '2,20p' "$0" | sed 's/^# \?//'; exit 2 ;;
esac
