"""Train every planned cell that is not done. Typed again, it goes on and repeats nothing.

    harness sweep experiment=demo
    harness sweep 'sweep.axes=["model=27k,56k","horizon.flops=1e12,2e12"]' group=mine
    harness sweep group=mine                             the cells that `harness plan` froze there
    harness sweep experiment=demo retry_failed=true      also the cells that failed
    harness sweep experiment=demo retry_killed=true      also those that `harness watch` killed
    harness sweep experiment=demo dry_run=true           the plan, nothing else
    harness sweep experiment=demo launcher.slots=1 launcher.threads_per_slot=2 hardware.threads=2
    harness sweep experiment=demo launcher.slots=auto          as many cells at once as give most tokens/s
    harness sweep group=mine hardware=gpu launcher.gpus=4      one cell a GPU
    harness sweep group=mine detach=true                 returns at once; status and stop find it

    harness sweep group=mine launcher=slurm launcher.partition=gpu launcher.gpus=1 launcher.time=4:00:00
    harness sweep group=mine launcher=slurm launcher.cells_per_task=8 launcher.tasks_at_once=16
    harness sweep group=mine launcher=slurm dry_run=true      the scripts that sbatch would get

One process a slot, largest first. Ctrl-C saves and stops, and so does `harness stop` from elsewhere;
a crashed cell never stops the others. Cells that Slurm jobs hold are left to them. Exit code 1 when cells
are left unfinished. Cells that differ in their horizon alone run one after another, and train what they have
in common once, where schedule.warmup_tokens makes them warm up in equally many steps.
launcher.slots=auto measures how many at once before a long sweep, and keeps that in <runs_dir>/.slots; the
cores of a slot stay what they are, and with them every bit of the results.

With launcher=slurm job arrays are submitted of what is neither done nor queued nor running, and the command
returns. Tasks that are preempted, out of time or lost with their node requeue themselves and go on.
Where the data are not prepared, a job that prepares them is submitted first, and one that waits for it and
then does what was typed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from harness.commands.cells import merged_plan, plan_lines, setting_of, show_plan, sweep_cells
from harness.commands.root import Experiment
from harness.commands.status import jobs_if_known, show_states
from harness.commands.unprepared import prepare_first
from harness.config import task_overrides, verb
from harness.data.prepare import Unprepared
from harness.errors import CannotAnswer, WrongInput
from harness.override import override
from harness.report.launches import print_launch, print_scripts, slots_line
from harness.report.sweep_progress import SweepProgress
from harness.report.terminal import print_lines
from harness.runs import PLAN, RECORD, RunDirectory, Status, revive
from harness.sweep.detach import QUEUE_LOG, detach
from harness.sweep.gpus import gpus_here, refuse_missing_gpus
from harness.sweep.launcher import LauncherKind
from harness.sweep.ledger import CellState, survey
from harness.sweep.local import Queue
from harness.sweep.plan import PlanLine, PlannedCell, read_lines
from harness.sweep.slots import AUTO, Slot, build_slots, own_cores, visible_gpus
from harness.sweep.slurm.launch import Launcher
from harness.sweep.throughput import choose_slots
from harness.training.cell import from_plain
from harness.training.provenance import code_version, processor, version
from harness.training.settings import Device, HardwareConfig, TrainConfig


@dataclass(kw_only=True)
class Settings(Experiment):
    retry_failed: bool = False
    retry_killed: bool = False
    extend: bool = False
    dry_run: bool = False
    detach: bool = False


@verb("sweep", Settings)
def main(settings: Settings) -> None:
    refuse_contradictions(settings)
    try:
        lines = cells_to_train(settings, task_overrides())
    except Unprepared:
        slurm = settings.launcher.kind is LauncherKind.slurm
        if slurm and prepare_first(settings, Settings, task_overrides(), settings.dry_run):
            return
        raise
    refuse_devices(settings, devices_of(settings, lines))
    if settings.retry_killed and not settings.dry_run:
        revive_killed(settings.folder, lines)
    if settings.launcher.kind is LauncherKind.slurm:
        on_slurm(settings, [line.cell for line in lines])
    elif settings.dry_run:
        show_plan(settings, [line.cell for line in lines])
    elif settings.detach:
        leave_behind(settings, task_overrides())
    else:
        on_this_machine(settings, lines)


def on_this_machine(settings: Settings, lines: Sequence[PlanLine]) -> None:
    """Raises CannotAnswer when cells are left unfinished."""
    is_measured = settings.launcher.slots == AUTO
    slots = measured_slots(settings, lines) if is_measured else build_slots(settings.launcher, own_cores())
    queue = Queue(settings.folder, lines, slots, settings.retry_failed, jobs=jobs_if_known(settings.folder))
    with SweepProgress(settings.group) as progress:
        queue.run(progress.update)
    states = list(queue.states.values())
    show_states(settings, states)
    if left := [state for state in states if not state.finished]:
        raise CannotAnswer(f"{len(left)} of {len(states)} cells are not finished, {why_not(left)}")


def why_not(left: Sequence[CellState]) -> str:
    """Of the first of these cells, and what to do."""
    state = left[0]
    where = f" in job {state.job}" if state.job else " (see its log.txt)"
    again = any(one.status is Status.failed for one in left)
    return (
        f"e.g. {state.cell.run_id} {state.status.value}{f': {state.note}' if state.note else where}"
        f"{'; retry_failed=true tries again what failed' if again else ''}"
    )


def refuse_contradictions(settings: Settings) -> None:
    """Before anything is written. Raises WrongInput."""
    wanted = settings.launcher
    if wanted.kind is LauncherKind.slurm and settings.detach:
        raise WrongInput("launcher=slurm leaves nothing running here; leave detach=true out")
    if settings.hardware.device is Device.cuda:
        refuse_devices(settings, {Device.cuda})
    if wanted.kind is LauncherKind.local and not settings.dry_run:
        build_slots(wanted, own_cores())


def devices_of(settings: Settings, lines: Sequence[PlanLine]) -> set[Device]:
    """Of the cells that are left, as they were frozen: what was typed may be silent about the hardware."""
    left = (line.frozen for line in lines if not (settings.folder / line.cell.run_id / RECORD).exists())
    return {Device(frozen["config"]["hardware"]["device"]) for frozen in left if frozen is not None}


def refuse_devices(settings: Settings, devices: Collection[Device]) -> None:
    """Raises WrongInput where cells of these devices would find no GPU, or all the same one."""
    wanted = settings.launcher
    if wanted.kind is LauncherKind.slurm:
        if Device.cuda in devices and not (wanted.gpus or wanted.gres):
            raise WrongInput("hardware=gpu needs launcher.gpus=1 (or launcher.gres=...): one for each task")
    elif not settings.dry_run:
        if Device.cuda in devices and not wanted.gpus:
            raise WrongInput("hardware=gpu needs launcher.gpus=N: how many GPUs to spread the cells over")
        if wanted.gpus:
            refuse_missing_gpus(visible_gpus(wanted.gpus))
        elif Device.auto in devices and (found := gpus_here()):
            raise WrongInput(
                f"hardware=auto takes a GPU, and this machine has {found}: all cells at once would be on the "
                f"first; say launcher.gpus={found}, or hardware=cpu"
            )


def measured_slots(settings: Settings, lines: Sequence[PlanLine]) -> list[Slot]:
    cores, launcher = own_cores(), settings.launcher
    states = survey(settings.folder, [line.cell for line in lines])
    left = [line for line, state in zip(lines, states, strict=True) if not state.finished]
    width = min(launcher.threads_per_slot, len(cores))
    about = {"processor": processor(), "torch": version("torch"), "code_version": code_version()}
    chosen = choose_slots(Path(settings.runs_dir), left, width, cores, about)
    print(slots_line(chosen), file=sys.stderr)
    return build_slots(replace(launcher, slots=chosen.slots), cores)


def revive_killed(root: Path, lines: Sequence[PlanLine]) -> None:
    for line in lines:
        if (run := RunDirectory(root / line.cell.run_id)).path.is_dir():
            revive(run)


def on_slurm(settings: Settings, cells: Sequence[PlannedCell]) -> None:
    launcher = Launcher(settings.folder, settings.launcher, settings.launcher.gpus)
    if settings.dry_run:
        print_scripts([one.script for one in launcher.preview(cells, settings.retry_failed)])
        return
    print_launch(settings.folder, launcher.launch(cells, settings.retry_failed))


def leave_behind(settings: Settings, typed: Sequence[str]) -> None:
    place = shlex.join([override("group", settings.group), override("runs_dir", settings.runs_dir)])
    pid = detach(settings.folder, [word for word in typed if not word.lstrip("+").startswith("detach=")])
    if pid is None:
        print_lines(f"{settings.folder}: nothing was left to do; what it said is in {QUEUE_LOG} there")
        return
    print_lines(
        f"{settings.folder}: process {pid} works through the sweep; its output goes to {QUEUE_LOG} there",
        f"harness status {place} shows it, harness stop {place} ends it",
    )


def cells_to_train(settings: Settings, typed: Sequence[str]) -> list[PlanLine]:
    """The cells of these axes, planned now unless they were before; without axes, the folder's plan."""
    if settings.sweep.is_empty and (settings.folder / PLAN).exists():
        lines = read_lines(settings.folder)
        refuse_edits(settings, typed, lines)
        return lines
    if settings.sweep.is_empty:
        raise WrongInput(
            f"the sweep has no cells: there is no plan in {settings.folder}, and no axes to make one of; add "
            "e.g. 'sweep.axes=[\"model=27k,56k\"]'"
        )
    cells = sweep_cells(settings, "sweep", Settings, typed)
    merged = merged_plan(
        settings, plan_lines(settings, cells), extend=settings.extend, write=not settings.dry_run
    )
    wanted = {cell.run_id for cell in cells}
    return [line for line in merged.lines if line.cell.run_id in wanted]


def refuse_edits(settings: Settings, typed: Sequence[str], lines: Sequence[PlanLine]) -> None:
    """Frozen cells take no more settings. Raises WrongInput for one that would be lost. `hardware` may be
    said again, as it says what the slots need, but not another than some cell was planned for."""
    frozen = {field.name for field in fields(TrainConfig)} - {"group", "hardware"}
    lost = [word for word in typed if setting_of(word) in frozen]
    lost += [
        word for word in typed if setting_of(word) == "hardware" and not planned_so(word, settings, lines)
    ]
    if lost:
        raise WrongInput(
            f"{settings.folder / PLAN} is frozen and {lost[0]} would not reach it; leave it out, "
            "or give sweep.axes= and another group="
        )


def planned_so(word: str, settings: Settings, lines: Sequence[PlanLine]) -> bool:
    """Whether some cell has the hardware setting that `word` sets; of a whole group the device counts."""
    name = word.lstrip("+").split("=")[0].partition(".")[2] or "device"
    wanted = getattr(settings.hardware, name)
    frozen = (line.frozen for line in lines)  # a plan of the first version holds none
    return any(
        one is None or getattr(from_plain(HardwareConfig, one["config"]["hardware"]), name) == wanted
        for one in frozen
    )
