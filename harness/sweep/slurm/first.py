"""What comes before a sweep's arrays where its data are not prepared: one job that prepares them, and one
that then plans the cells, whose ids depend on the data, and submits the arrays.

The second waits for the first (`afterok`), and is taken out of the queue when that fails. Which jobs they are
stands in runs/<sweep>/.slurm/first.json; no plan and neither job in the queue says that one has failed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CannotAnswer
from harness.runs import one_at_a_time, read_json_if_any, write_json
from harness.sweep.slurm.manifest import FOLDER
from harness.sweep.slurm.sbatch import submit_job
from harness.sweep.slurm.scheduler import Job, cancel, held_jobs, last_line
from harness.sweep.slurm.script import job_name, options, path_of
from harness.sweep.slurm.settings import SlurmConfig
from harness.sweep.slurm.submit import LOCK

NOTE, PREPARE, SWEEP = "first.json", "prepare", "sweep"
PLACE, SIZE = ("partition", "account", "qos"), ("time", "cpus-per-task", "mem", "constraint")
TO_COME = "JOB_ID_OF_PREPARE"


@dataclass(frozen=True)
class First:
    """The ids of the two jobs; `held` are those of them that have not ended."""

    prepare: str
    sweep: str
    held: tuple[Job, ...] = ()
    submitted: bool = False


@dataclass(frozen=True)
class Preparer:
    """`prepare` are words of `harness prepare`, `sweep` those of `harness sweep launcher=slurm`."""

    root: Path
    config: SlurmConfig
    prepare: Sequence[str]
    sweep: Sequence[str]

    def submit(self) -> First:
        """Submit the two jobs unless they are under way. Two at once take turns.

        Raises CannotAnswer when Slurm does not answer or takes them not; then neither is in the queue.
        """
        with one_at_a_time(self.root / FOLDER, LOCK):
            if (before := first_of(self.root)) is not None and before.held:
                return before
            first = submit_job(self.command(PREPARE), changed=own_path())
            try:
                then = submit_job(self.command(SWEEP, first), changed=own_path())
            except CannotAnswer:
                cancel([first])
                raise
            write_json(self.root / FOLDER / NOTE, {"prepare": first, "sweep": then})
            jobs = tuple(held_jobs(names(self.root)))
        return First(first, then, jobs, submitted=True)

    def preview(self) -> list[str]:
        """The commands and scripts that `submit` would hand in; nothing is written."""
        commands = [shlex.join(self.command(PREPARE)), shlex.join(self.command(SWEEP, TO_COME))]
        return [*commands, *(path_of(f"{name}.sbatch").read_text() for name in (PREPARE, SWEEP))]

    def command(self, name: str, after: str | None = None) -> list[str]:
        """Every word is an argument of its own: no shell reads them."""
        wait = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
        mine = [f"--job-name={job_name(self.root, name)}", f"--output={log(self.root, name)}", *wait]
        wanted = (*PLACE, *SIZE) if name == PREPARE else PLACE
        words = self.prepare if name == PREPARE else self.sweep
        script = str(path_of(f"{name}.sbatch"))
        return ["sbatch", "--parsable", *mine, *options(self.config, *wanted), script, *words]


def log(root: Path, name: str, job: str = "%j") -> Path:
    return root / FOLDER / f"{name}-{job}.txt"


def names(root: Path) -> list[str]:
    return [job_name(root, PREPARE), job_name(root, SWEEP)]


def own_path() -> dict[str, str]:
    """The `harness` of the scripts is the one that submits them."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


def first_of(root: Path) -> First | None:
    """The jobs that were submitted last, None where there are none. Raises CannotAnswer when there are and
    squeue does not answer."""
    note = read_json_if_any(root / FOLDER / NOTE)
    if note is None:
        return None
    mine = {note["prepare"], note["sweep"]}
    return First(**note, held=tuple(job for job in held_jobs(names(root)) if job.id in mine))


def forget_first(root: Path) -> bool:
    """Cancel the two jobs and forget them; whether one of them was in the queue."""
    first = first_of(root)
    if first is None:
        return False
    cancel([job.id for job in first.held])
    (root / FOLDER / NOTE).unlink(missing_ok=True)
    return bool(first.held)


def why_ended(root: Path, first: First) -> str:
    """Of two jobs that have both ended without a plan: the last word of the one that failed."""
    for name, job in ((SWEEP, first.sweep), (PREPARE, first.prepare)):
        path = log(root, name, job)
        try:
            said = last_line(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if said:
            return f"{root} has no plan: job {job} has ended with: {said} (all of it in {path})"
    return f"{root} has no plan: jobs {first.prepare} and {first.sweep} ended before they said anything"
