"""The table that a law of another response is fitted to, and what its columns may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.forms.form import RowNumbers
from harness.laws.sources.source import load
from harness.laws.tables import ColumnTable, read_columns


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table as the user named it. `columns` maps the names that a law wants to the table's own; `pooled`
    names columns in which the runs of one law may differ."""

    path: Path
    where: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    pooled: Sequence[str] = ()

    def read(self, *names: str) -> ColumnTable:
        return read_columns(self.path, names, self.where, self.columns)

    def has(self, *names: str) -> bool:
        present = {*load(self.path).columns, *self.columns}
        return set(names) <= present


def within(table: ColumnTable, name: str, low: float, high: float) -> None:
    """Raises CannotAnswer when a value of the column lies outside; percents often do."""
    column = table.values[name]
    outside = int(((column < low) | (column > high)).sum())
    if outside:
        raise CannotAnswer(
            f"{name} must lie between {low:g} and {high:g}, and does not on {outside} of {len(column)} rows "
            f"({column.min():g} to {column.max():g}); a percentage must be divided by 100"
        )


def run_numbers(labels: Sequence[str], runs: Sequence[str]) -> RowNumbers:
    """The position of each label among `runs`. Raises WrongInput for a label that is not there."""
    place = {run: i for i, run in enumerate(runs)}
    if unknown := sorted(set(labels) - set(place)):
        raise WrongInput(f"the run {unknown[0]!r} is not in the table of finished runs")
    return np.array([place[label] for label in labels], dtype=np.intp)
