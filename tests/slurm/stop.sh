#!/usr/bin/env bash
# Ends the Slurm that start.sh has started in a folder, its jobs first: tests/slurm/stop.sh DIR
folder=$(cd "${1:?folder}" && pwd)
export SLURM_CONF=$folder/slurm.conf
scancel --quiet --signal=KILL --full --state=RUNNING --me
scancel --quiet --me
for _ in $(seq 20); do
  [ -z "$(squeue --noheader 2> /dev/null)" ] && break
  sleep 0.5
done
for pid in "$folder"/slurmd.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
  [ -f "$pid" ] && kill "$(cat "$pid")"
done
exit 0
