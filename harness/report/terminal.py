"""What a person sees on a terminal: tables, progress, and JSON alone on stdout for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """The value alone on stdout."""
    print(json.dumps(value, indent=1, allow_nan=False))


def print_lines(*lines: str) -> None:
    for line in lines:
        print(line)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Right-aligned but for the first column; wide output is never cut when it goes to a file."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as text: "[open, 3]" would pass for markup
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(title, style="bold", markup=False)
    console.print(table)


def si(value: float) -> str:
    """1234567 as 1.23M, the way people say sizes and token counts."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:  # 999,936 is 1M, not 1e+03k
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def counted(number: int, what: str = "cell") -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StageProgress:
    """A bar per stage on a terminal; a line per stage in a log."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.console = Console(file=sys.stderr)
        self.live = Progress(*columns, console=self.console) if sys.stderr.isatty() else None
        self.tasks: dict[str, TaskID] = {}
        self.said: set[str] = set()

    def __enter__(self) -> StageProgress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def update(self, stage: str, done: int, total: int | None) -> None:
        if self.live is None:
            if stage not in self.said:
                self.said.add(stage)
                print(stage, file=sys.stderr)
            return
        if stage not in self.tasks:
            self.tasks[stage] = self.live.add_task(stage, total=total)
        self.live.update(self.tasks[stage], completed=done, total=total)
