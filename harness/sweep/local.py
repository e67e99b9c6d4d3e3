"""A queue on this machine: one process a slot, largest units first, a crash never stops the others.

Cells that share a trunk are one unit: they run one after another, the shortest first.

Each cell is a child process of its own, so a crash or an out-of-memory kill takes one cell with it. A
child dies with its parent, and a sweep typed again goes on from the checkpoints.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import CannotAnswer, WrongInput
from harness.override import override
from harness.runs import RunDirectory, Status
from harness.signals import SHELL_SIGNAL, death
from harness.sweep.gpus import trouble_with
from harness.sweep.ledger import WAITING, CellState, held, look, survey
from harness.sweep.plan import PlanLine, PlannedCell, create_run, still_planned
from harness.sweep.queues import registered, release, reserve
from harness.sweep.slots import Slot, only
from harness.sweep.slurm.jobs import NO_JOBS, Jobs
from harness.sweep.units import units

LOG = "log.txt"
POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    cell: PlannedCell
    slot: Slot
    process: subprocess.Popen[bytes]


Watch = Callable[[list[CellState]], None]
Command = Callable[[Path], list[str]]


def train_command(run: Path) -> list[str]:
    """What trains the planned cell in `run`."""
    return [sys.executable, "-m", "harness", "train", override("cell", str(run.resolve()))]


class Queue:
    """Runs the cells that are not done, and tells `watch` how all of them stand. Those that batch jobs hold
    are left to them."""

    def __init__(
        self,
        root: Path,
        lines: Sequence[PlanLine],
        slots: Sequence[Slot],
        retry_failed: bool,
        command: Command = train_command,
        jobs: Jobs = NO_JOBS,
    ) -> None:
        self.root = root
        self.jobs = jobs
        self.slots = list(slots)
        self.command = command
        self.lines = {line.cell.run_id: line for line in lines}
        cells = [line.cell for line in lines]
        self.states = {state.cell.run_id: waiting_or_not(state) for state in survey(root, cells, jobs)}
        self.retry_failed = retry_failed
        self.waiting = [cell for unit in units(filter(self.launchable, cells)) for cell in unit]
        self.children: list[Child] = []

    def launchable(self, cell: PlannedCell) -> bool:
        status = self.states[cell.run_id].status
        return status in WAITING or (status is Status.failed and self.retry_failed)

    def run(self, watch: Watch) -> None:
        """Until every cell has had its turn. Ctrl-C or SIGTERM asks the children to save and stop."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with contextlib.ExitStack() as registration:
                waiting = [cell.run_id for cell in self.waiting]
                with still_planned(self.root, waiting):
                    beat = registration.enter_context(registered(self.root, waiting))
                while self.waiting or self.children or self.elsewhere():
                    self.reap()
                    beat(self.left())
                    self.launch()
                    self.refresh()
                    watch(list(self.states.values()))
                    time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        for run_id in self.jobs.held.keys() & self.states.keys():
            self.update(self.states[run_id].cell)

    def left(self) -> list[str]:
        """The cells that wait or run here."""
        return [*(cell.run_id for cell in self.waiting), *(child.cell.run_id for child in self.children)]

    def elsewhere(self) -> list[CellState]:
        """Cells that another sweep of the same folder is running: waited for, not started twice."""
        mine = {child.cell.run_id for child in self.children}
        running = [s for s in self.states.values() if s.status is Status.running]
        return [state for state in running if state.cell.run_id not in mine]

    def launch(self) -> None:
        busy = [child.slot for child in self.children]
        for slot in [slot for slot in self.slots if slot not in busy]:
            cell = self.next_cell()
            if cell is None:
                return
            run = self.root / cell.run_id
            self.children.append(Child(cell, slot, start(run, slot, self.command(run))))

    def next_cell(self) -> PlannedCell | None:
        """The first cell that waits and that no other queue has begun or is starting, its run directory
        made. While one of a trunk runs, the others wait for what it leaves them."""
        busy = self.trunks_at_work()
        for cell in list(self.waiting):
            if cell.trunk and cell.trunk in busy:
                continue
            self.update(cell)
            if self.launchable(cell) and not self.prepared(cell):
                busy.add(cell.trunk)
                continue
            self.waiting.remove(cell)
            if self.launchable(cell):
                return cell
        return None

    def trunks_at_work(self) -> set[str]:
        running = [child.cell for child in self.children] + [state.cell for state in self.elsewhere()]
        return {cell.trunk for cell in running}

    def prepared(self, cell: PlannedCell) -> bool:
        """Whether its run directory is there and reserved; a damaged one must not stop the others."""
        try:
            reserved = reserve(create_run(self.root, self.lines[cell.run_id]).path)
        except WrongInput as error:
            print(error, file=sys.stderr)
            self.states[cell.run_id] = CellState(cell, Status.damaged, note=str(error))
            return True
        self.update(cell)  # another queue may have finished it since we looked
        return reserved

    def reap(self) -> None:
        for child in [child for child in self.children if child.process.poll() is not None]:
            self.children.remove(child)
            release(self.root / child.cell.run_id)
            status = self.update(child.cell).status
            if status in (Status.failed, Status.lost):
                self.retire(child.slot)
            if status is Status.lost:
                code = child.process.returncode
                how = death(code if code >= 0 else SHELL_SIGNAL - code)
                print(f"{child.cell.run_id}: {how}; the sweep typed again goes on with it", file=sys.stderr)

    def retire(self, slot: Slot) -> None:
        """Give up a slot that has just failed a cell, where its GPU fails a bare process too: it would fail
        all cells that are left, one after another. Raises CannotAnswer when it was the last."""
        if slot.gpu is None or not (why := trouble_with(slot.gpu)):
            return
        self.slots.remove(slot)
        print(f"GPU {slot.gpu} cannot be used, its slot is given up: {why}", file=sys.stderr)
        if not self.slots and self.waiting:
            raise CannotAnswer(f"no GPU can be used any more ({why}); mend that and type the sweep again")

    def refresh(self) -> None:
        others = {state.cell.run_id for state in self.elsewhere()}
        for run_id in {child.cell.run_id for child in self.children} | others:
            state = self.update(self.states[run_id].cell)
            if run_id in others and state.status in WAITING:
                self.waiting.append(state.cell)  # the other sweep died: its cell is ours now

    def update(self, cell: PlannedCell) -> CellState:
        found = look(RunDirectory(self.root / cell.run_id), cell)
        self.states[cell.run_id] = held(found, self.root, self.jobs)
        return self.states[cell.run_id]

    def stop(self) -> None:
        for child in self.children:
            child.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def waiting_or_not(state: CellState) -> CellState:
    """A cell that other queues hold too goes to the one that claims it first; not so one of a batch job."""
    waits = state.status is Status.queued and not state.job
    return replace(state, status=Status.planned) if waits else state


def start(run: Path, slot: Slot, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Train one planned cell in a child process pinned to the slot; its output goes to log.txt."""
    threads = str(len(slot.cores))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "TORCHINDUCTOR_COMPILE_THREADS": threads,
        "HARNESS_TRACEBACK": "1",
    }
    parent = os.getpid()
    if slot.gpu is not None:
        environment |= only(slot.gpu, os.environ)
    with (run / LOG).open("ab") as log:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # a Ctrl-C reaches the queue alone, which then asks politely
            preexec_fn=lambda: settle(slot, parent),
        )


def settle(slot: Slot, parent: int) -> None:
    """In the child, before it starts: its cores, and SIGTERM when the queue dies, however it dies."""
    if slot.gpu is None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it died before we could ask to be told
