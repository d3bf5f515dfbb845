#!/usr/bin/env bash
# One row of a table a task; from the checkout's folder:
#   sbatch --array=1-10%1 slurm/row.sh params/paper/table2.yaml [more of `run`, as -p training.seeds=[0]]
# Rows share what they have in common (tests, samples, the baseline) once one of them has finished it: rows that run at the
# same time each make it. So begin with a row of each data set and policy, then raise the number behind %.
# Time limit and preemption requeue the task, and it goes on where it stopped. Each row writes the table's page anew.
#SBATCH --job-name=plum
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=16
#SBATCH --mem=96G
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
set -euo pipefail

sweep="${1:?give a sweep file, as params/paper/table2.yaml}"
shift
cd "${SLURM_SUBMIT_DIR:-.}"

requeue() {
  echo "stopped before its time was up; queued again"
  kill -TERM "$task"
  wait "$task" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue TERM

# Of an environment that conda made: activate it, and PLUM_PYTHON=python sbatch ...
srun "${PLUM_PYTHON:-.venv/bin/python}" -m plum_utils run "$sweep" --row "${SLURM_ARRAY_TASK_ID:?give --array}" "$@" &
task=$!
wait "$task"
