#!/usr/bin/env bash
# Starts a Slurm of one node, this machine, all in one folder: tests/slurm/start.sh DIR
# Installs Debian's slurm-wlm and munge where it can. Exit code 3 where there is no Slurm to be had; the reason is printed.
set -euo pipefail
folder=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)

if [ "$(id -u)" != 0 ]; then
  echo "no Slurm: it is started as root only"
  exit 3
fi
if ! command -v slurmctld slurmd munged sbatch > /dev/null; then
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } \
    > "$folder/install.log" 2>&1 || { echo "no Slurm: slurm-wlm and munge cannot be installed ($(tail -n 1 "$folder/install.log"))"; exit 3; }
fi

chmod 755 "$folder"
mkdir -p "$folder"/{state,spool,munge}
chmod 755 "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
chmod 400 "$folder/munge/key"
cat > "$folder/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
# A job that is put back waits as long as a credential lives, two minutes by default.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,sched_min_interval=100000,batch_sched_delay=1,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
InactiveLimit=0
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:8 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
CONF
touch "$folder"/gpu{0..7}  # make-believe: the templates ask for some
echo "NodeName=$(hostname -s) Name=gpu File=$folder/gpu[0-7]" > "$folder/gres.conf"
export SLURM_CONF=$folder/slurm.conf
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%t --partition=low 2> /dev/null)" = idle ]; then
    exit 0
  fi
  sleep 0.5
done
echo "Slurm does not come up: $folder/slurmctld.log, $folder/slurmd.log"
exit 1
