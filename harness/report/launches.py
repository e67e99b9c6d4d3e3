"""What a person reads when a sweep is launched: how many cells at once, or what Slurm was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report.terminal import counted, print_lines, si
from harness.sweep.ledger import counts
from harness.sweep.slurm.first import First
from harness.sweep.slurm.launch import Launched
from harness.sweep.slurm.manifest import FOLDER, Manifest
from harness.sweep.throughput import SlotChoice, Unmeasured


def slots_line(chosen: SlotChoice | Unmeasured) -> str:
    """How many cells at once, and what was measured of it."""
    if isinstance(chosen, Unmeasured):
        return f"{chosen.slots} cells at once, not measured: {chosen.reason}"
    speeds = ", ".join(
        f"{si(one.tokens_per_second)} with {one.arrangement.slots}" for one in reversed(chosen.measured)
    )
    return (
        f"{chosen.slots} cells at once, {chosen.ratio:.2f} times the tokens/s of one: {speeds} "
        f"({chosen.model}, measured {chosen.measured_at} in {chosen.seconds:.0f} s, "
        f"load before it {chosen.load:.1f})"
    )


def print_scripts(scripts: Sequence[str]) -> None:
    """The scripts, whole and nothing else."""
    print_lines("\n".join(scripts) if scripts else "nothing to submit")


def print_launch(root: Path, launched: Launched) -> None:
    before = ", ".join(f"{number} {status}" for status, number in counts(launched.states).items())
    print_lines(
        f"{root}: {counted(len(launched.states))}, before this {before}",
        *(array_line(root, array) for array in launched.arrays if array.submitted),
        *waiting_lines(launched),
    )


def print_first(root: Path, first: First) -> None:
    now = {job.id: f" ({job.state.lower()}{why(job.reason)})" for job in first.held}
    did = "submitted" if first.submitted else "under way:"
    print_lines(
        f"{root}: the data are not prepared",
        f"{did} job {first.prepare}{now.get(first.prepare, ', which has ended')}, which prepares them, and "
        f"job {first.sweep}{now.get(first.sweep, '')}, which then plans the cells and submits their arrays",
        f"output in {root / FOLDER}/prepare-{first.prepare}.txt and sweep-{first.sweep}.txt",
    )


def why(reason: str) -> str:
    return "" if reason in ("", "None") else f": {reason}"


def array_line(root: Path, array: Manifest) -> str:
    tasks = array.tasks[: array.submitted]
    at_once = f", at most {array.at_once} at once" if array.at_once else ""
    return (
        f"submitted {counted(sum(map(len, tasks)))} in {counted(len(tasks), 'task')}{at_once} as job "
        f"{', '.join(array.jobs)}; output in {root / FOLDER}/{array.number:04d}-*.txt"
    )


def waiting_lines(launched: Launched) -> list[str]:
    if not launched.arrays:
        return ["nothing to submit"]
    if not launched.waiting:
        return []
    return [
        f"{launched.waiting} tasks wait: {launched.refusal}",
        "tasks that end submit them, or go on with them where they are still refused",
    ]
