"""Which cells of a sweep the scheduler holds: its manifests against what squeue lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.runs import JobAttempt
from harness.sweep.slurm.manifest import Manifest, read_manifests
from harness.sweep.slurm.scheduler import Task, held_tasks


@dataclass(frozen=True)
class Jobs:
    """`held` has the task that will train a cell, or does, by run id, with its manifest. `submitted` are the
    ids of this sweep's jobs, those that are over included. `waiting` are cells that the cluster would not
    take yet, and that tasks which it holds will see to as they end."""

    held: dict[str, tuple[Task, Manifest]]
    submitted: frozenset[str]
    tasks: dict[str, Task]
    waiting: frozenset[str] = frozenset()

    def task_for(self, run: Path, *, failed: bool = False) -> Task | None:
        """The task that holds the cell; for one that has failed only if that will try it again."""
        found = self.held.get(run.name)
        if found is None or (failed and not found[1].may_try(run)):
            return None
        return found[0]

    def is_over(self, attempt: JobAttempt | None) -> bool:
        """Whether an execution of one of this sweep's jobs has ended, as far as the queue tells."""
        if attempt is None or attempt.job.split("_")[0] not in self.submitted:
            return False
        task = self.tasks.get(attempt.job)
        return task is None or task.state == "PENDING"


NO_JOBS = Jobs({}, frozenset(), {})


def jobs_of(root: Path) -> Jobs:
    """Raises CannotAnswer when there are manifests and squeue does not answer."""
    manifests = read_manifests(root)
    return match(manifests, held_tasks([manifest.name for manifest in manifests]))


def match(manifests: Sequence[Manifest], tasks: Sequence[Task]) -> Jobs:
    """A job that its manifest does not know was submitted by somebody who was killed before he noted it:
    then the name of the array tells."""
    by_name = {manifest.name: manifest for manifest in manifests}
    held: dict[str, tuple[Task, Manifest]] = {}
    mine = []
    for task in tasks:
        manifest = by_name.get(task.name)
        if manifest is None or task.index >= len(manifest.tasks):
            continue
        if task.job not in manifest.jobs and task.index < manifest.submitted:
            continue  # of an earlier folder of this name
        mine.append(task)
        held.update((run_id, (task, manifest)) for run_id in manifest.tasks[task.index])
    submitted = {job for manifest in manifests for job in manifest.jobs} | {task.job for task in mine}
    left = (task for manifest in manifests for task in manifest.tasks[manifest.submitted :])
    waiting = frozenset(run_id for task in left for run_id in task) if mine else frozenset()
    return Jobs(held, frozenset(submitted), {task.id: task for task in mine}, waiting)
