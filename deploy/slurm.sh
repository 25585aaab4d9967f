#!/bin/bash
# Starts Ray on the nodes of a Slurm job, runs one command of paperwalk on it, and stops it. From the repository, on a
# file system that all nodes see, with requirements-cluster.lock installed in .venv:
#     sbatch --nodes=3 deploy/slurm.sh run goldfish --profile gpu --seeds 12
#SBATCH --job-name=paperwalk
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=02:00:00
#SBATCH --output=paperwalk-%j.log
#SBATCH --no-kill
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PYTHONUTF8=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))  # jobs that share a node must not meet

# On every node: Ray with what Slurm granted. On the first one alone: the command. A lost node does not end the job.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --no-kill \
    .venv/bin/ray symmetric-run --address "$ip:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
    .venv/bin/python -m paperwalk "$@" --cluster "$ip:$port"
