#!/usr/bin/env bash
# A SLURM cluster for tests on one machine: real daemons, two nodes n1 and n2 with 2 CPUs and 2 pretended GPUs each.
#
#   slurm/testcluster.sh start [--accounting]   # with --accounting also slurmdbd and MariaDB, so that sacct works
#   eval "$(slurm/testcluster.sh env)"          # sets SLURM_CONF, by which sbatch, squeue, … find this cluster
#   slurm/testcluster.sh status                 # exit status 1 if it is not running
#   slurm/testcluster.sh node-stop n1           # a power cut: slurmd and all jobs of that node are gone at once
#   slurm/testcluster.sh node-start n1
#   slurm/testcluster.sh stop
#
# Everything lives in one folder, $KDBENCH_TESTCLUSTER (/tmp/kdbench-testcluster), with ports and a munge socket of its
# own: a SLURM or munge of the machine is not touched, and clusters in different folders run side by side. Needs root.
#
# What happens to jobs here (measured with SLURM 22.05.8):
#
# - A requeued job starts again 6 to 8 s later: it waits for cred_expire, which is 120 s by default.
# - A job in the partition `high` preempts jobs in `low`, the default. About a second later a job with --signal=USR2@N
#   gets SIGCONT and USR2: its steps do, or the batch script alone with --signal=B:USR2@N. Without --signal its steps
#   get SIGCONT and SIGTERM, and the batch script gets nothing yet. What still runs 10 to 20 s later (after GraceTime,
#   when the controller looks again) is requeued: SIGCONT and SIGTERM to all, SIGKILL after KillWait.
# - A job that ends by itself within the grace time is over, not requeued. To run again it must call `scontrol requeue`.
# - The controller looks at time limits every 30 s: --time=1 --signal=USR2@30 gave USR2 after 28 s, the end after 88 s.
# - Jobs of a node that was stopped are requeued 25 to 30 s later, when it has been silent for SlurmdTimeout.
set -euo pipefail
umask 022  # munged refuses folders that others may write to

state=${KDBENCH_TESTCLUSTER:-/tmp/kdbench-testcluster}
state=$(realpath -m "$state" 2>/dev/null || echo "$state")
nodes=(n1 n2)
accounting=false
export SLURM_CONF=$state/slurm.conf

main() {
  # A folder in /tmp that somebody else made first could hold links, or configuration that the daemons would execute.
  if [ "$EUID" -eq 0 ] && [ -e "$state" ] && [ ! -O "$state" ]; then fail 1 "$state belongs to another user: name another folder in KDBENCH_TESTCLUSTER"; fi
  case "$*" in
    "start --accounting") accounting=true && start ;;
    start | stop | status) "$1" ;;
    env) print_env ;;
    "node-stop n1" | "node-stop n2") node_stop "$2" ;;
    "node-start n1" | "node-start n2") node_start "$2" ;;
    *) fail 2 "usage: start [--accounting], stop, status, env, node-stop n1|n2 or node-start n1|n2" ;;
  esac
}

start() {
  check_machine
  lock
  if answers; then
    if $accounting && [ ! -e "$state/slurmdbd.conf" ]; then fail 1 "runs without accounting: stop it first"; fi
    say "already running in $state"
    return
  fi
  clear_state  # what a crash left there
  if [ -n "$(ls -A "$state" 2>/dev/null)" ]; then fail 1 "$state holds something else: name another folder"; fi
  trap start_failed EXIT
  mkdir -p "$state"
  touch "$state/.testcluster"  # without it, nothing in the folder is touched
  mkdir "$state"/{log,run,ctld,gpu,n1,n2}
  choose_ports
  start_munged
  write_configuration
  if $accounting; then start_accounting; fi
  launch slurmctld
  for node in "${nodes[@]}"; do launch slurmd -N "$node"; done
  await 30 usable "${nodes[@]}"
  trap - EXIT
  say "running in $state"
}

start_failed() {
  trap - EXIT
  for log in "$state"/log/*; do
    printf '\n== %s\n' "$log"
    tail -n 15 "$log"
  done >&2
  end_processes
  fail 1 "did not start; the ends of its logs are above, all of them in $state/log"
}

stop() {
  lock
  clear_state
  say "stopped"
}

status() {
  answers || fail 1 "not running in $state"
  say "running in $state"
  sinfo --Node --Format=NodeList:6,Partition:10,StateLong:14,Gres:8,GresUsed:24
}

print_env() {
  answers || fail 1 "not running in $state"
  printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
}

node_stop() {
  local pids
  # Again until nothing is left: what dies may just have started something.
  while pids=$(node_processes "$1") && [ -n "$pids" ]; do kill -KILL $pids 2>/dev/null || true; done
}

node_start() {
  answers || fail 1 "not running in $state"
  if [ -n "$(holding slurmd "$state/log/slurmd.$1.log*")" ]; then return; fi
  # A machine takes longer to boot than SlurmdTimeout. This one may be back before the controller has missed it, which
  # would then take jobs that had only just started for running.
  scontrol update NodeName="$1" State=DOWN Reason=reboot
  launch slurmd -N "$1"
  await 30 usable "$1" || fail 1 "$1 did not come back; see $state/log/slurmd.$1.log"
}

# Exit status 3 if this machine cannot run a cluster. Nothing but the shell is used: any program may be the missing one.
check_machine() {
  local programs=(munged slurmctld slurmd sinfo scontrol) packages="munge slurm-wlm" missing=()
  if $accounting; then
    programs+=(slurmdbd sacctmgr mariadbd mariadb mariadb-install-db)
    packages+=" slurmdbd mariadb-server"
  fi
  for program in "${programs[@]}"; do command -v "$program" >/dev/null || missing+=("$program"); done
  [ ${#missing[@]} -eq 0 ] || fail 3 "not on the PATH: ${missing[*]}; the Debian packages are $packages"
  [ "$EUID" -eq 0 ] || fail 3 "only root can start the cluster, as slurmd needs it to run jobs"
}

# A block of ports on which nothing answers: the controller, the two nodes, slurmdbd, MariaDB.
choose_ports() {
  for port in {17000..17990..10}; do
    local answer=false
    for ((i = 0; i < 5; i++)); do
      if (: <"/dev/tcp/127.0.0.1/$((port + i))") 2>/dev/null; then answer=true; fi
    done
    $answer || return 0
  done
  return 1
}

start_munged() {
  (umask 077 && head -c 1024 /dev/urandom >"$state/munge.key")
  # With an origin, since munged otherwise looks up the host's name, which in a container may not resolve.
  launch munged --force --origin=127.0.0.1 --key-file="$state/munge.key" --socket="$state/run/munge.socket" \
    --pid-file="$state/run/munged.pid" --log-file="$state/log/munged.log" --seed-file="$state/run/munged.seed"
}

write_configuration() {
  local host
  host=$(uname -n)
  host=${host%%.*}
  cat >"$SLURM_CONF" <<END
ClusterName=kdbench-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$state/run/munge.socket,cred_expire=5
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/%n
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/slurmd.%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd.%n.log
MailProg=/bin/true

# No plug-in that needs cgroups, hwloc or PMIx; nodes are believed, whatever the machine has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=2 RealMemory=64000 Gres=gpu:2
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1))-$((port + 2))

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
MaxArraySize=5001
MaxJobCount=10000
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2

SlurmdTimeout=10
ReturnToService=2
JobRequeue=1
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=5
PartitionName=high Nodes=n[1-2] PriorityTier=10
END
  if $accounting; then
    cat >>"$SLURM_CONF" <<END

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 3))
AccountingStoragePass=$state/run/munge.socket
END
  fi
  # slurmd wants device files; the ttys that are often taken for this are missing in containers.
  for number in 0 1; do ln -s /dev/null "$state/gpu/gpu$number"; done
  echo "NodeName=n[1-2] Name=gpu File=$state/gpu/gpu[0-1]" >"$state/gres.conf"
  # slurmd loads a cgroup plug-in even if nothing uses it. The one it chooses by itself fails where cgroups are absent
  # or read-only, as in a container; v1 does nothing before it is used.
  echo "CgroupPlugin=cgroup/v1" >"$state/cgroup.conf"
}

start_accounting() {
  local data=$state/mariadb socket=$state/run/mariadb.socket password
  password=$(head -c 24 /dev/urandom | base64)
  launch mariadb-install-db --no-defaults --user=root --datadir="$data" --skip-test-db \
    --auth-root-authentication-method=normal
  launch setsid --fork mariadbd --no-defaults --user=root --datadir="$data" --socket="$socket" \
    --bind-address=127.0.0.1 --port=$((port + 4)) --pid-file="$state/run/mariadbd.pid" \
    --log-error="$state/log/mariadbd.log"
  await 30 mariadb --no-defaults --socket="$socket" --execute="
    CREATE USER slurm@127.0.0.1 IDENTIFIED BY '$password'; GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1"
  (umask 077 && cat >"$state/slurmdbd.conf") <<END
AuthType=auth/munge
AuthInfo=socket=$state/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((port + 3))
SlurmUser=root
PidFile=$state/run/slurmdbd.pid
LogFile=$state/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((port + 4))
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct_db
END
  launch slurmdbd
  await 30 launch sacctmgr --immediate add cluster kdbench-test
}

# A daemon goes into the background once it is ready. It must not inherit the lock, which would be held until it ends.
launch() { "$@" </dev/null >>"$state/log/launch.log" 2>&1 9>&-; }

# Waits until a command succeeds, at most so many seconds.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# One start or stop at a time, also of different clusters, lest two choose the same ports. A locked folder leaves no
# file behind.
lock() {
  exec 9</
  flock --wait 120 9 || fail 1 "another start or stop has not ended for two minutes"
}

answers() { [ -e "$SLURM_CONF" ] && scontrol ping >/dev/null 2>&1; }

usable() {
  local states
  states=$(IFS=, && sinfo --noheader --Node --partition=low --nodes="$*" --Format=StateCompact:20) || return 1
  [ "$(grep -cxE '(idle|mix|alloc|comp) *' <<<"$states")" -eq $# ]
}

# Process ids of a program (a pattern) that has files of this cluster open (a pattern), as no other process of that name
# has. Unlike a pid file, that holds before the file is written and after its number belongs to somebody else.
holding() {
  local pid program
  # find complains about processes that end meanwhile.
  { find /proc/[0-9]*/fd -lname "$2" 2>/dev/null || true; } | cut -d/ -f3 | sort -u | while read -r pid; do
    read -r program 2>/dev/null <"/proc/$pid/comm" || continue
    if [[ $program == $1 ]]; then echo "$pid"; fi
  done
}

# slurmd and slurmstepd have the node's log open, jobs have its name in their environment. The daemons come first, to
# die before they can tell the controller how the jobs ended.
node_processes() {
  holding 'slurm*d' "$state/log/slurmd.$1.log*"
  { grep -lzxF "SLURMD_NODENAME=$1" /proc/[0-9]*/environ 2>/dev/null || true; } |
    { xargs -r grep -lzxF "SLURM_CONF=$SLURM_CONF" 2>/dev/null || true; } | cut -d/ -f3
}

end_processes() {
  for node in "${nodes[@]}"; do node_stop "$node"; done
  for program in slurmctld slurmdbd mariadbd munged; do
    local pids
    pids=$(holding $program "$state/*")
    [ -n "$pids" ] || continue
    kill -TERM $pids 2>/dev/null || true
    await 10 ended $program || kill -KILL $(holding $program "$state/*") 2>/dev/null || true
  done
}

ended() { [ -z "$(holding "$1" "$state/*")" ]; }

# A folder that is not a test cluster's may hold the files of other daemons: neither they nor the folder are touched.
# That of a running cluster may have been deleted.
clear_state() {
  if [ -e "$state" ] && [ ! -e "$state/.testcluster" ]; then return; fi
  end_processes
  rm -rf "$state"
}

say() { printf 'testcluster: %s\n' "$*"; }

fail() {
  say "$2" >&2
  exit "$1"
}

main "$@"
exit  # or the shell would read on, though the file may have been replaced meanwhile
