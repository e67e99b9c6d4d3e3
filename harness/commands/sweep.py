"""Train every planned cell that is not done. Typed again, it goes on and repeats nothing.

    harness sweep experiment=demo
    harness sweep 'sweep.axes=["model=27k,56k","horizon.flops=1e12,2e12"]' group=mine
    harness sweep experiment=demo retry_failed=true      also the cells that failed
    harness sweep experiment=demo dry_run=true           the plan, nothing else
    harness sweep experiment=demo launcher.slots=1 launcher.threads_per_slot=2 hardware.threads=2
    harness sweep group=mine hardware=gpu launcher.gpus=4      one cell a GPU

One process a slot, largest cells first. Ctrl-C saves and stops; a crashed cell never stops the others.
Exit code 1 when cells are left unfinished.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from harness.commands.cells import show_plan, sweep_cells, write_cells
from harness.commands.root import Experiment, Format, planned
from harness.config import task_overrides, verb
from harness.errors import CannotAnswer, WrongInput
from harness.report.sweep_progress import SweepProgress
from harness.report.tables import print_states
from harness.report.terminal import print_json
from harness.sweep.ledger import survey
from harness.sweep.local import Queue, build_slots, own_cores
from harness.training.settings import Device


@dataclass(kw_only=True)
class Settings(Experiment):
    retry_failed: bool = False
    extend: bool = False
    dry_run: bool = False


@verb("sweep", Settings)
def main(settings: Settings) -> None:
    cells = sweep_cells(settings, "sweep", Settings, task_overrides())
    plan = [planned(cell) for cell in cells]
    if settings.dry_run:
        show_plan(settings, plan)
        return
    if settings.hardware.device is Device.cuda and not settings.launcher.gpus:
        raise WrongInput("hardware=gpu needs launcher.gpus=N: how many GPUs to spread the cells over")
    write_cells(settings, cells, extend=settings.extend)
    slots = build_slots(settings.launcher, own_cores())
    queue = Queue(settings.folder, plan, slots, settings.retry_failed)
    with SweepProgress(settings.group) as progress:
        queue.run(progress.update)
    states = survey(settings.folder, plan)
    if settings.format is Format.json:
        print_json([{**asdict(state.cell), "status": state.status, "loss": state.loss} for state in states])
    else:
        print_states(settings.group, states)
    if left := [state for state in states if not state.finished]:
        first = left[0]
        raise CannotAnswer(
            f"{len(left)} of {len(states)} cells are not finished, e.g. {first.cell.run_id}: {first.status} "
            f"{first.note or '(see its log.txt)'}"
        )
