"""What a log says of a queue while it works: one line a cell that has ended."""

from harness.report.sweep_progress import SweepProgress
from harness.runs import Status
from harness.sweep.ledger import CellState
from harness.sweep.plan import PlannedCell


def state(name: str, status: Status, tokens: int = 0, **known: object) -> CellState:
    cell = PlannedCell(name, "27k", 1, 2, 100, 4, 5.0, 0.1, 0, name)
    return CellState(cell, status, tokens, **known)


def test_a_log_gets_one_line_for_each_cell_that_has_ended(capsys):
    before = [state("a", Status.running), *(state(name, Status.planned) for name in "bc")]
    done = state("a", Status.done, 100, loss=2.5)
    failed = state("c", Status.failed, note="not a number")
    with SweepProgress("mine") as progress:
        progress.update(before)
        assert capsys.readouterr().err == ""
        halfway = [done, state("b", Status.running, 50, tokens_per_second=2000.0), failed]
        progress.update(halfway)
        progress.update(halfway)
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("a done: loss 2.5000; mine: 1 of 3 cells done, 1 failed, 2k tokens/s, time")
        assert second.startswith("c failed: not a number; mine: 1 of 3 cells done, 1 failed,")
        progress.update(
            [done, state("b", Status.diverged, note="infinite"), state("c", Status.done, loss=3.0)]
        )
    last = capsys.readouterr().err.splitlines()
    assert last == ["b diverged: infinite; mine: 3 of 3 cells done"]
