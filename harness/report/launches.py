"""What a person reads after a launch on Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report.terminal import print_lines
from harness.sweep.ledger import counts
from harness.sweep.slurm.launch import Launched
from harness.sweep.slurm.manifest import FOLDER, Manifest


def print_scripts(scripts: Sequence[str]) -> None:
    """The scripts, whole and nothing else."""
    print_lines("\n".join(scripts) if scripts else "nothing to submit")


def print_launch(root: Path, launched: Launched) -> None:
    before = ", ".join(f"{number} {status}" for status, number in counts(launched.states).items())
    print_lines(
        f"{root}: {len(launched.states)} cells, before this {before}",
        *(array_line(root, array) for array in launched.arrays if array.submitted),
        *waiting_lines(launched),
    )


def array_line(root: Path, array: Manifest) -> str:
    tasks = array.tasks[: array.submitted]
    at_once = f", at most {array.at_once} at once" if array.at_once else ""
    return (
        f"submitted {sum(map(len, tasks))} cells in {len(tasks)} tasks{at_once} as job "
        f"{', '.join(array.jobs)}; output in {root / FOLDER}/{array.number:04d}-*.txt"
    )


def waiting_lines(launched: Launched) -> list[str]:
    if not launched.arrays:
        return ["nothing to submit"]
    if not launched.waiting:
        return []
    return [
        f"{launched.waiting} tasks wait: {launched.refusal}",
        "each task that ends submits more of them, and so does this command typed again",
    ]
