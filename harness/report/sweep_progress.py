"""A live view of a running sweep: cells done, tokens a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.report.terminal import duration, si
from harness.runs import Status
from harness.sweep.ledger import CellState
from harness.sweep.units import Unit, new_flops, shared_tokens, units


class SweepProgress:
    """On a terminal a table that updates in place; in a log one line a finished cell."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.console = Console(file=sys.stderr, highlight=False)
        self.live = Live(console=self.console, refresh_per_second=2) if sys.stderr.isatty() else None
        self.began = time.monotonic()
        self.flops_before: float | None = None
        self.units: list[Unit] = []
        self.shared: dict[str, int] = {}
        self.said: set[str] = set()

    def __enter__(self) -> SweepProgress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def update(self, states: Sequence[CellState]) -> None:
        if self.flops_before is None:
            self.units = units(state.cell for state in states)
            self.shared = shared_tokens(self.units)
            self.flops_before = self.spent(states)
            self.said = {state.cell.run_id for state in states if state.finished}
        if self.live:
            self.live.update(Group(Text(self.headline(states), style="bold"), self.table(states)))
        else:
            self.say(states)

    def table(self, states: Sequence[CellState]) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("running", "progress", "loss", "tokens/s"):
            table.add_column(column)
        for state in states:
            if state.status is Status.running:
                table.add_row(*running_row(state))
        return table

    def headline(self, states: Sequence[CellState]) -> str:
        done = sum(state.finished for state in states)
        speed = sum(s.tokens_per_second or 0 for s in states if s.status is Status.running)
        failed = sum(state.status is Status.failed for state in states)
        note = f", {failed} failed" if failed else ""
        so_far = f"{self.group}: {done} of {len(states)} cells done{note}"
        if done == len(states):
            return so_far
        pace = f"{si(speed)} tokens/s" if speed else "starting"
        return f"{so_far}, {pace}, time left {self.time_left(states)}"

    def time_left(self, states: Sequence[CellState]) -> str:
        """From the FLOPs done since this view began; small cells are slower a FLOP, so it is an estimate."""
        seconds = time.monotonic() - self.began
        done = self.spent(states) - (self.flops_before or 0.0)
        left = sum(flops for unit in self.units for flops in new_flops(unit)) - self.spent(states)
        return duration(left / done * seconds) if done > 0 else "unknown"

    def spent(self, states: Sequence[CellState]) -> float:
        """The FLOPs done, those of a shared trunk once."""
        return sum(
            s.cell.flops
            * max(0.0, (s.cell.tokens if s.finished else s.tokens) - self.shared[s.cell.run_id])
            / s.cell.tokens
            for s in states
        )

    def say(self, states: Sequence[CellState]) -> None:
        for state in states:
            ended = state.finished or state.status is Status.failed
            if ended and state.cell.run_id not in self.said:
                self.said.add(state.cell.run_id)
                loss = f"loss {state.loss:.4f}" if state.loss is not None else state.note
                print(
                    f"{state.cell.run_id} {state.status.value}: {loss}; {self.headline(states)}",
                    file=sys.stderr,
                )


def running_row(state: CellState) -> tuple[str, ...]:
    share = state.tokens / state.cell.tokens
    bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
    loss = "-" if state.loss is None else f"{state.loss:.3f}"
    speed = "starting" if state.tokens_per_second is None else f"{state.tokens_per_second:,.0f}"
    return state.cell.run_id, f"{bar} {share:4.0%}", loss, speed
