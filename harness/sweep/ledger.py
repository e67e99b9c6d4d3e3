"""Where every planned cell stands: planned minus found, from the run directories alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import WrongInput
from harness.runs import FAILURE, RunDirectory, Status, read_json
from harness.sweep.plan import PlannedCell


@dataclass(frozen=True)
class CellState:
    """One cell's status and how far it got. `tokens_per_second` is the last one logged."""

    cell: PlannedCell
    status: str
    tokens: int
    loss: float | None
    tokens_per_second: float | None
    note: str = ""

    @property
    def finished(self) -> bool:
        return self.status in (Status.done.value, Status.diverged.value)


def survey(root: Path, cells: Iterable[PlannedCell]) -> list[CellState]:
    return [look(RunDirectory(root / cell.run_id), cell) for cell in cells]


def look(run: RunDirectory, cell: PlannedCell) -> CellState:
    """The state of one run; a damaged directory is said so, never raised."""
    try:
        status = run.status()
        if status in (Status.done, Status.diverged):
            record = run.record()
            return CellState(
                cell, status.value, record.tokens, record.loss, record.tokens_per_second, record.reason
            )
        note = read_json(run.path / FAILURE)["reason"] if status is Status.failed else ""
    except (WrongInput, KeyError, TypeError, ValueError) as error:
        return CellState(cell, "damaged", 0, None, None, str(error))
    last = run.last_metric() or {}
    return CellState(
        cell, status.value, last.get("tokens", 0), last.get("loss"), last.get("tokens_per_second"), note
    )


def counts(states: Sequence[CellState]) -> dict[str, int]:
    return dict(Counter(state.status for state in states))
