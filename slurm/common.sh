# Read by the scripts here: the site's setup, the right folder and Python, and a run that may be stopped and queued again.

cd "${LUMOS_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}"
if [ ! -f run.py ]; then
  echo "$PWD has no run.py; call sbatch in the project's folder, or set LUMOS_HOME" >&2
  exit 2
fi
# shellcheck source=/dev/null
[ -f slurm/site.sh ] && source slurm/site.sh
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)
fi

# Run a command that keeps its state on SIGUSR1 (Slurm sends it to this shell before the time limit); then queue again.
run_or_requeue() {
  local code=0 child
  "$@" &
  child=$!
  trap 'kill -USR1 "$child" 2>/dev/null || true' USR1
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM
  wait "$child" || code=$?
  # A trapped signal ends the wait, not the command.
  while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  if [ "$code" -eq 138 ]; then # 128 + SIGUSR1: its state is kept
    echo "out of time; queued again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  return "$code"
}
