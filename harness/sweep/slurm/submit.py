"""Arrays that are written down: handed to the scheduler, as many tasks as it takes, and taken back.

A cluster may cap how many tasks a user has in its queue. What it refuses waits in its manifest for the tasks
that end (harness.sweep.slurm.feed), or for the launch that is typed again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.runs import one_at_a_time
from harness.sweep.slurm.jobs import match
from harness.sweep.slurm.manifest import FOLDER, Manifest, path_of, read_manifests, script_of, write_manifest
from harness.sweep.slurm.sbatch import Full, submit
from harness.sweep.slurm.scheduler import NoAnswer, Refused, Task, cancel, held_tasks
from harness.sweep.slurm.script import indices

LOCK = ".lock"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Withdrawn:
    """The tasks that were cancelled, those of them that have not ended, and what scancel had against it."""

    cancelled: list[Task]
    left: list[Task]
    objection: str


def withdraw(root: Path, wait_seconds: float) -> Withdrawn:
    """Cancel every job of the sweep, for good, and wait until they have ended; what waits is forgotten.

    What runs gets SIGTERM and as long as the cluster's KillWait to save.
    """
    with one_at_a_time(root / FOLDER, LOCK):
        before = read_manifests(root)
        tasks = list(match(before, held_tasks([manifest.name for manifest in before])).tasks.values())
        forget_unsubmitted(root, noted(root, before, tasks))
        objection = cancel(sorted({task.job for task in tasks}))
    return Withdrawn(tasks, not_ended(tasks, wait_seconds), objection)


def not_ended(tasks: Sequence[Task], wait_seconds: float) -> list[Task]:
    """Those of the tasks that the scheduler still holds when the time is over."""
    names, ids = sorted({task.name for task in tasks}), {task.id for task in tasks}
    deadline = time.monotonic() + wait_seconds
    while left := [task for task in held_tasks(names) if task.id in ids]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return left


def newest(tasks: Sequence[Task]) -> str | None:
    """The job submitted last; squeue lists by priority."""
    return max((task.job for task in tasks), key=int, default=None)


def submit_waiting(root: Path, last: str | None) -> str:
    """Submit until there is no more or the cluster refuses; then why. `last` is the newest job of the
    sweep: where the number of tasks at once is limited, a new array waits for it."""
    for manifest in read_manifests(root):
        while manifest.waits:
            try:
                manifest = submit_some(root, manifest, last if manifest.at_once else None)
            except (Refused, NoAnswer) as refusal:
                return str(refusal)
            last = manifest.jobs[-1]
    return ""


def submit_some(root: Path, manifest: Manifest, after: str | None) -> Manifest:
    """Submit the tasks that wait, or half of them, or half of that: as many as the cluster takes at once.

    Raises Refused when it does not take one, NoAnswer when it does not answer.
    """
    size = manifest.waits
    while True:
        stop = manifest.submitted + size
        array = indices(manifest.submitted, stop, manifest.at_once)
        try:
            job = submit(script_of(Path(), manifest.number), root, array, after)
        except (Refused, NoAnswer) as refusal:
            if isinstance(refusal, Full | NoAnswer):
                # the queue tells whether the array is in it all the same
                found = note(root, manifest, held_tasks([manifest.name]))
                if found.submitted > manifest.submitted:
                    return found
            if size == 1 or isinstance(refusal, NoAnswer):
                raise
            size //= 2
            continue
        manifest = replace(manifest, submitted=stop, jobs=(*manifest.jobs, job))
        write_manifest(root, manifest)
        return manifest


def noted(root: Path, manifests: Sequence[Manifest], tasks: Sequence[Task]) -> list[Manifest]:
    """The manifests with the jobs that somebody submitted who was killed before noting them."""
    return [note(root, manifest, tasks) if manifest.waits else manifest for manifest in manifests]


def note(root: Path, manifest: Manifest, tasks: Sequence[Task]) -> Manifest:
    lost = [task for task in tasks if task.name == manifest.name and manifest.submitted <= task.index]
    if not lost:
        return manifest
    submitted = 1 + max(task.index for task in lost)
    found = replace(manifest, submitted=submitted, jobs=(*manifest.jobs, lost[0].job))
    write_manifest(root, found)
    return found


def forget_unsubmitted(root: Path, manifests: Sequence[Manifest]) -> list[Manifest]:
    """The manifests without the tasks that wait: those are planned anew."""
    kept = []
    for manifest in manifests:
        if manifest.submitted == 0 and manifest.waits:
            path_of(root, manifest.number).unlink(missing_ok=True)
            script_of(root, manifest.number).unlink(missing_ok=True)
            continue
        short = replace(manifest, tasks=manifest.tasks[: manifest.submitted])
        if short != manifest:
            write_manifest(root, short)
        kept.append(short)
    return kept
