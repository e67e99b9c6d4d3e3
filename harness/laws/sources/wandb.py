"""What the W&B site exports as CSV: its table of runs, or the data behind a chart.

The table of runs has a row a run, with its name, its state and every config and summary value as a column.
A chart has a row a step and a column `<run> - <metric>` a curve, each followed by its `__MIN` and `__MAX`
over smoothed steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.laws.sources.files import read_table
from harness.laws.sources.table import Cells, Table, as_text

STANDARD_NAMES = {"ID": "run_id", "State": "status", "Group": "group"}
CURVE = " - "
EXTREMES = ("__MIN", "__MAX")


def is_wandb_runs(header: Sequence[str]) -> bool:
    return {"Name", "State"} <= set(header)


def is_wandb_history(header: Sequence[str]) -> bool:
    """A first column for the steps, then nothing but curves."""
    return len(header) > 1 and CURVE not in header[0] and all(CURVE in name for name in header[1:])


def read_wandb_runs(path: Path) -> Table:
    """One row a run. Without the ID column runs are told apart by name, and by row where names repeat."""
    rows = read_table(path)
    names = Counter(row["Name"] for row in rows)
    found: list[Cells] = []
    for at, row in enumerate(rows, start=1):
        name = row["Name"] if names[row["Name"]] == 1 else f"{row['Name']} (row {at})"
        standard = {new: row[own] for own, new in STANDARD_NAMES.items() if own in row and new not in row}
        found.append({"run_id": name, **row, **standard})
    return Table(path=path, rows=found)


def read_wandb_history(path: Path) -> Table:
    """One row a run: the last logged value of each metric, and of the first column (the step)."""
    rows = read_table(path)
    axis, *header = rows[0]
    runs: dict[str, dict[str, str]] = {}
    for column in header:
        run, metric = column.rsplit(CURVE, 1)
        if not metric.endswith(EXTREMES):
            at, value = last(rows, axis, column)
            values = runs.setdefault(run, {"run_id": run, axis: at})
            values[metric] = value
            values[axis] = max(values[axis], at, key=step)
    return Table(path=path, rows=as_text(list(runs.values())))


def last(rows: Sequence[Mapping[str, str]], axis: str, column: str) -> tuple[str, str]:
    """Where a curve ends and its value there. NaN is a value: that run diverged."""
    return next(((row[axis], row[column]) for row in reversed(rows) if row[column]), ("", ""))


def step(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
