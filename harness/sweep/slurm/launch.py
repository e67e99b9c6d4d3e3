"""From a plan to submitted arrays: what is neither done nor queued nor running, as Slurm takes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.runs import Status, content_hash, one_at_a_time, write_text
from harness.sweep.ledger import WAITING, CellState, survey
from harness.sweep.plan import PlannedCell, still_planned
from harness.sweep.slurm.jobs import match
from harness.sweep.slurm.manifest import (
    FOLDER,
    Manifest,
    Tasks,
    chunks,
    ends_of,
    failures,
    next_number,
    pack,
    path_of,
    read_manifests,
    script_of,
    write_manifest,
)
from harness.sweep.slurm.scheduler import Refused, held_tasks, longest_array
from harness.sweep.slurm.script import Array, job_name, render, template
from harness.sweep.slurm.settings import SlurmConfig
from harness.sweep.slurm.submit import LOCK, forget_unsubmitted, newest, noted, submit_waiting
from harness.sweep.units import units


@dataclass(frozen=True)
class Planned:
    """An array that is still to be written down: its manifest and its script."""

    manifest: Manifest
    script: str


@dataclass(frozen=True)
class Launched:
    """How the cells stood before; the arrays of this launch. `refusal` says why some tasks still wait."""

    states: list[CellState]
    arrays: list[Manifest]
    refusal: str = ""

    @property
    def waiting(self) -> int:
        return sum(manifest.waits for manifest in self.arrays)


@dataclass(frozen=True)
class Launcher:
    """How a sweep's cells become arrays. `command` trains one task, given the path of its manifest."""

    root: Path
    config: SlurmConfig
    gpus: int = 0
    command: tuple[str, ...] = (sys.executable, "-m", "harness.commands.task")

    def launch(self, cells: Sequence[PlannedCell], retry_failed: bool) -> Launched:
        """Submit what is not under way. Two at once take turns: the second finds it submitted.

        Raises CannotAnswer when Slurm does not answer or takes nothing at all; then nothing was changed.
        """
        with one_at_a_time(self.root / FOLDER, LOCK):
            before = read_manifests(self.root)
            tasks = held_tasks([manifest.name for manifest in before])
            with still_planned(self.root, [cell.run_id for cell in cells]):
                before = forget_unsubmitted(self.root, noted(self.root, before, tasks))
                states = survey(self.root, cells, match(before, tasks))
                planned = self.arrays(todo(states, retry_failed), longest_array())
                for one in planned:
                    self.write(one)
            refusal = submit_waiting(self.root, newest(tasks))
            numbers = {one.manifest.number for one in planned}
            arrays = [manifest for manifest in read_manifests(self.root) if manifest.number in numbers]
            if refusal and not any(manifest.submitted for manifest in arrays) and not tasks:
                forget_unsubmitted(self.root, arrays)
                raise Refused(f"{refusal}; nothing was submitted")
        return Launched(states, arrays, refusal)

    def preview(self, cells: Sequence[PlannedCell], retry_failed: bool) -> list[Planned]:
        """The arrays that `launch` would submit; nothing is written."""
        before = read_manifests(self.root)
        jobs = match(before, held_tasks([manifest.name for manifest in before]))
        return self.arrays(todo(survey(self.root, cells, jobs), retry_failed), longest_array())

    def arrays(self, cells: Sequence[PlannedCell], longest: int) -> list[Planned]:
        tasks = pack(units(cells), self.config.cells_per_task)
        first = next_number(self.root)
        return [self.array(number, chunk) for number, chunk in enumerate(chunks(tasks, longest), first)]

    def array(self, number: int, tasks: Tasks) -> Planned:
        """Paths are relative to the sweep's folder, in which the array is submitted: the name of no folder
        above it reaches a directive, but for the hash in the array's name."""
        counted = {run_id: failures(self.root / run_id) for task in tasks for run_id in task}
        manifest = Manifest(
            number=number,
            name=job_name(self.root, f"{number:04d}"),
            tasks=tuple(tasks),
            allowed=1 + self.config.retries,
            failed_before={run_id: count for run_id, count in counted.items() if count},
            at_once=self.config.tasks_at_once,
            settings=self.settings(),
        )
        array = Array(
            name=manifest.name,
            tasks=len(tasks),
            command=(*self.command, str(path_of(Path(), number))),
            log=f"{FOLDER}/{number:04d}-%a.txt",
            ends=str(ends_of(Path(), number, "%a")),
            gpus=self.gpus,
        )
        return Planned(manifest, render(template(), self.config, array))

    def settings(self) -> str:
        """A hash of what a task is given and runs, whichever it is."""
        anywhere = Array(name="", tasks=1, command=self.command, log="", ends="", gpus=self.gpus)
        config = replace(self.config, tasks_at_once=None)
        return content_hash(render(template(), config, anywhere))

    def write(self, planned: Planned) -> None:
        """The script first: whoever finds a manifest finds its script."""
        write_text(script_of(self.root, planned.manifest.number), planned.script)
        write_manifest(self.root, planned.manifest)


def todo(states: Sequence[CellState], retry_failed: bool) -> list[PlannedCell]:
    launchable = (*WAITING, Status.failed) if retry_failed else WAITING
    return [state.cell for state in states if state.status in launchable]
