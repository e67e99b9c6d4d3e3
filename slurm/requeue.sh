# requeue TASK MOST [NOTE]: queue this job again and wait to be killed, for one that leaves before counts as
# completed. Not if it was cancelled, if another node runs it by now, or if it was started MOST times before.
# The file NOTE gets a line: how often it had been started before, and the status with which its work ended.
#
# Part of every array that `harness sweep launcher=slurm` submits; frontier.sbatch reads it.
requeue() {
  local task=$1 most=$2 restarts=${SLURM_RESTART_COUNT:-0} job
  if [ "$restarts" -ge "$most" ]; then
    echo "started $restarts times before: not requeued" >&2
    return
  fi
  for _ in $(seq 60); do
    job=$(scontrol --oneliner show job "$task" 2>&1)
    case "$job" in
    *" JobState=RUNNING "*" Restarts=$restarts "*)
      if scontrol requeue "$task"; then
        echo "$restarts $status" >>"${3:-/dev/null}"
        sleep 300
        return
      fi
      ;;
    *" JobState="* | *"Invalid job id"*) return ;;
    esac
    sleep 5 # the controller does not answer
  done
}
