"""Stop what works through a sweep on this machine or in Slurm jobs. Every run saves first.

    harness stop experiment=demo
    harness stop group=mine
    harness stop group=mine wait_seconds=300      for large checkpoints

`harness sweep` with the same words goes on from there. Jobs are cancelled for good: none is queued again.
Exit code 1 when something still runs, here or on another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer, WrongInput
from harness.report.terminal import print_json, print_lines
from harness.runs import read_owner
from harness.sweep.slurm.first import forget_first
from harness.sweep.slurm.manifest import read_manifests
from harness.sweep.slurm.submit import Withdrawn, withdraw
from harness.sweep.stop import Stopped, Worker, stop


@dataclass(kw_only=True)
class Settings(Experiment):
    wait_seconds: float = 90.0


@verb("stop", Settings)
def main(settings: Settings) -> None:
    if not settings.folder.is_dir():
        raise WrongInput(f"{settings.folder} does not exist; say group= or experiment= of the sweep to stop")
    jobs, silence = withdraw_if_possible(settings)
    done = stop(settings.folder, settings.wait_seconds)
    if settings.format is Format.json:
        found = {name: [plain(worker) for worker in workers] for name, workers in vars(done).items()}
        print_json({**found, "cancelled": [task.id for task in jobs.cancelled]})
    else:
        print_lines(*lines(settings, done, jobs))
    if silence:
        raise CannotAnswer(f"jobs of the sweep may still run: {silence}") from silence
    if jobs.left:
        why = f": {jobs.objection}" if jobs.objection else ""
        raise CannotAnswer(f"{len(jobs.left)} tasks have not ended, e.g. {jobs.left[0].id}{why}")
    cancelled = {task.id for task in jobs.cancelled}
    elsewhere = [worker for worker in done.elsewhere if job_of(settings, worker) not in cancelled]
    if running := [*done.left, *elsewhere]:
        raise CannotAnswer(f"{said(running)} still run; for another machine type the same words there")


def withdraw_if_possible(settings: Settings) -> tuple[Withdrawn, CannotAnswer | None]:
    """Where Slurm does not answer, what runs on this machine is stopped all the same."""
    try:
        if forget_first(settings.folder) or read_manifests(settings.folder):
            return withdraw(settings.folder, settings.wait_seconds), None
    except CannotAnswer as error:
        return Withdrawn([], [], ""), error
    return Withdrawn([], [], ""), None


def job_of(settings: Settings, worker: Worker) -> str:
    owner = read_owner(settings.folder / worker.run_id) if worker.run_id else None
    return owner.job.job if owner and owner.job else ""


def lines(settings: Settings, done: Stopped, jobs: Withdrawn) -> list[str]:
    parts = [f"stopped {said(done.stopped)}"] if done.stopped else []
    if jobs.cancelled:
        names = sorted({task.job for task in jobs.cancelled})
        parts.append(f"cancelled {len(jobs.cancelled)} tasks of job {', '.join(names)}")
    return [f"{settings.folder}: {'; '.join(parts) or 'nothing was stopped'}"]


def said(workers: Sequence[Worker]) -> str:
    return ", ".join(
        f"{worker.run_id or 'a sweep'} (process {worker.process.pid} on {worker.process.host})"
        for worker in workers
    )


def plain(worker: Worker) -> dict[str, str | int]:
    return {"run_id": worker.run_id, "host": worker.process.host, "pid": worker.process.pid}
