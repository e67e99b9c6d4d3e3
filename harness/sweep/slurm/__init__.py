"""A sweep on a Slurm cluster: job arrays over a frozen plan, no process that must stay alive.

runs/<sweep>/.slurm/
    0001.json      a manifest: which cells each task of one array trains, and the array's job id
    0001.sbatch    the script that was submitted, whole
    0001-7.txt     what task 7 printed
    0001-7.ends    how those of its executions ended that requeued themselves
    first.json     the jobs that prepare the data and then plan, where those were missing

What a cell's run directory says is the truth; the scheduler is only asked which tasks it still holds. A task
requeues itself when it ends in any way but by finishing or by a failure of its own, unless it was cancelled;
cells go on from their checkpoints, and an execution that a later one has replaced writes no more. The batch
script runs the one process of a task without srun: a step would add nothing to it on one node but the ways in
which a step fails to start, and a third of what a task costs beside its cells.

Not submitit: its client waits for results by job id and takes a preempted or requeued job without a
checkpoint callback for lost; a preemption that sends SIGTERM alone restarts its job from nothing; jobs of ten
minutes or less count as timed out when they are preempted; arrays longer than MaxArraySize are left to the
caller. Lightning's own requeue goes unheard beside it, both wanting the signal. What is left to share would
be the text of the batch script, and that is short.
"""
