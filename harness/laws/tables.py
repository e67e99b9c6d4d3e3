"""From a table of runs to observations: column names, filters, faults; one pipeline for every source.

The standard columns are `columns.STANDARD`. A table that calls them otherwise is read through `columns`, a
mapping from the standard name to the table's own. Other columns may be used in filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.cells import (
    fault_of,
    label_of,
    loss_unit_of,
    number_fault,
    refuse_mixtures,
    row_of_cells,
    value_of,
)
from harness.laws.collect import collect, summary
from harness.laws.columns import empty_params, mapped, need, params_column_of, with_body_and_head
from harness.laws.config import ParamsKind
from harness.laws.filters import Filter, first_refusal, parse_filter
from harness.laws.observations import Observations, best_of_cell
from harness.laws.sources.source import load
from harness.laws.sources.table import Cells, Table
from harness.laws.surfaces import Floats
from harness.laws.variants import refuse_variants
from harness.runs import Skipped


class BestOf(Enum):
    """How repeated rows are reduced before a fit."""

    none = "none"
    cell = "cell"


@dataclass(frozen=True, kw_only=True)
class ColumnTable:
    """Columns of numbers, every one finite. `labels` are the run ids, or row numbers where there are none."""

    values: dict[str, Floats]  # by standard name, each [rows]
    labels: tuple[str, ...]
    dropped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_columns(
    path: Path, names: Sequence[str], where: Sequence[str] = (), columns: Mapping[str, str] = {}
) -> ColumnTable:
    """The named columns as numbers, for laws of other quantities than loss against N and D.

    Rows that a filter, a missing or non-finite number, or the table's own status leaves out are in
    `dropped`, and so is a named run that repeats an earlier row. Raises WrongInput for a file, column or
    filter that is not there, CannotAnswer when no row is left.
    """
    filters = [parse_filter(text) for text in where]
    table = with_body_and_head(mapped(load(path), columns, names))
    sizes = [params_column_of(table, kind) for kind in ParamsKind if f"params_{kind.value}" in names]
    need(table, (*names, *(f.column for f in filters)))
    kept, dropped = filtered(table, filters)
    for size in sizes:
        require_params(table, [row for _, row in kept if not fault_of(row)], size)
    rows: list[tuple[str, list[float]]] = []
    seen: set[tuple[str, ...]] = set()
    for label, cells in kept:
        if fault := fault_of(cells) or number_fault(label, cells, names) or repetition(cells, seen):
            dropped.append(Skipped(label, fault))
        else:
            rows.append((label, [value_of(cells, name) for name in names]))
    if not rows:
        raise CannotAnswer(f"{path}: no usable row is left of {len(table.rows)}: {summary(dropped)}")
    matrix = np.array([values for _, values in rows], dtype=float)
    return ColumnTable(
        values={name: matrix[:, at].copy() for at, name in enumerate(names)},
        labels=tuple(label for label, _ in rows),
        dropped=tuple(dropped),
    )


def require_params(table: Table, rows: Sequence[Cells], size: str) -> None:
    """Raises WrongInput when no row says its `size`, with the count of N to choose instead."""
    if rows and not any(row[size] for row in rows):
        raise empty_params(table, rows, size)


def repetition(cells: Cells, seen: set[tuple[str, ...]]) -> str:
    """Whether a named run repeats an earlier row in every cell; `seen` is added to."""
    row = tuple(cells.values())
    if not cells.get("run_id") or row not in seen:
        seen.add(row)
        return ""
    return "duplicate"


def observations_from_table(
    path: Path,
    where: Sequence[str] = (),
    params: ParamsKind = ParamsKind.total,
    best_of: BestOf = BestOf.none,
    columns: Mapping[str, str] = {},
    of_compute: bool = False,
    pooled: Sequence[str] = (),
) -> Observations:
    """Rows that pass every filter, of any source that `load` understands.

    `of_compute` is for a law of compute alone: where not every row has N and D, rows of FLOPs and a loss
    will do. `pooled` names columns in which variants may differ, see `refuse_variants`. Raises WrongInput
    for a missing or damaged file, column or filter, mixed loss units, or an N that the table does not hold;
    CannotAnswer when nothing usable is left, or when corpora or variants differ.
    """
    filters = [parse_filter(text) for text in where]
    table = with_body_and_head(mapped(load(path), columns))
    need(table, ("loss", *(f.column for f in filters)))
    kept, dropped = filtered(table, filters)
    cells = [row for _, row in kept if not fault_of(row)]
    params_column = ""
    if not (of_compute and compute_alone(path, cells, f"params_{params.value}")):
        params_column = params_column_of(table, params)
        need(table, ("tokens",))
        require_params(table, cells, params_column)
    refuse_mixtures(path, cells)
    refuse_variants(path, cells, pooled)
    rows = [row_of_cells(label, row, params_column) for label, row in kept]
    unit = loss_unit_of(cells, columns.get("loss", "loss"))
    observations = collect(rows, params, unit, table.flops_kind, dropped)
    return best_of_cell(observations) if best_of is BestOf.cell else observations


def compute_alone(path: Path, rows: Sequence[Cells], size: str) -> bool:
    """Whether rows have FLOPs, and not all of them N and D as well. Raises WrongInput when no row has
    either."""
    sized = [bool(row.get(size) and row.get("tokens")) for row in rows]
    given = any(row.get("flops") for row in rows)
    if rows and not given and not any(sized):
        raise WrongInput(
            f"{path}: flops is empty on all {len(rows)} rows; a law of compute reads it: if another column "
            "is meant, add columns={flops: ITS_NAME}"
        )
    return given and not all(sized)


def filtered(table: Table, filters: Sequence[Filter]) -> tuple[list[tuple[str, Cells]], list[Skipped]]:
    """The rows that pass every filter, labelled; and the others, each with the first filter it fails."""
    kept: list[tuple[str, Cells]] = []
    dropped = list(table.skipped)
    for at, row in enumerate(table.rows, start=1):
        label = label_of(row, f"row {at}")
        if refused := first_refusal(row, filters):
            dropped.append(Skipped(label, f"where {refused}"))
        else:
            kept.append((label, row))
    if not kept and table.rows:
        raise WrongInput(
            f"{table.path}: no row of {len(table.rows)} passes where=[{', '.join(map(str, filters))}]"
        )
    return kept, dropped
