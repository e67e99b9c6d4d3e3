"""From a table of runs to observations: column names, filters, faults; one pipeline for every source.

Standard columns: run_id, group, params_total, params_non_embedding, tokens, unique_tokens, epochs, flops,
loss, loss_kind, seed, corpus, corpus_hash, tokenizer, tokenizer_hash, status, diverged, unfinished. A table
that calls them otherwise is read through `columns`, a mapping from the standard name to the table's own.
Other columns may be used in filters.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.filters import first_refusal, number, parse_filter
from harness.laws.observations import Observations, Row, best_of_cell, collect, summary
from harness.laws.sources.files import read_table
from harness.laws.sources.table import Cells, Table
from harness.laws.surfaces import Floats
from harness.runs import Skipped

FINISHED = {"", "done", "finished", "ok", "completed"}
SHOWN_COLUMNS = 30


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
    `dropped`, and so is a row equal to an earlier one. Raises WrongInput for a file, column or filter that
    is not there, CannotAnswer when no row is left.
    """
    table = mapped(load(path), columns, names)
    need(table, names)
    kept, dropped = filtered(table, where)
    labels: list[str] = []
    rows: list[tuple[float, ...]] = []
    seen: set[tuple[object, ...]] = set()
    for label, cells in kept:
        values = tuple(value_of(cells, name) for name in names)
        repeated = "duplicate" if (label_of(cells, ""), values) in seen else ""
        if fault := fault_of(cells) or not_finite(names, values) or repeated:
            dropped.append(Skipped(label, fault))
            continue
        seen.add((label_of(cells, ""), values))
        labels.append(label)
        rows.append(values)
    if not rows:
        raise CannotAnswer(f"{path}: no usable row is left of {len(table.rows)}: {summary(dropped)}")
    values_by_name = dict(zip(names, np.array(rows, dtype=float).T.copy(), strict=True))
    return ColumnTable(values=values_by_name, labels=tuple(labels), dropped=tuple(dropped))


def observations_from_table(
    path: Path,
    where: Sequence[str] = (),
    params: ParamsKind = ParamsKind.total,
    best_of: BestOf = BestOf.none,
    columns: Mapping[str, str] = {},
) -> Observations:
    """Rows that pass every filter, of any source that `load` understands.

    Raises WrongInput for a missing or damaged file, column or filter, mixed loss units, or an N that the
    table does not hold; CannotAnswer when nothing usable is left or corpora differ.
    """
    params_column = f"params_{params.value}"
    table = with_body_and_head(mapped(load(path), columns))
    need(table, (params_column, "tokens", "loss"))
    kept, dropped = filtered(table, where)
    cells = [row for _, row in kept]
    if not any(row[params_column] for row in cells):
        raise WrongInput(f"{path}: {params_column} is empty on all {len(kept)} rows; choose another params=")
    rows = [row_of_cells(label, row, params_column) for label, row in kept]
    unit = loss_unit_of(path, cells, columns.get("loss", "loss"))
    observations = collect(rows, params, unit, table.flops_kind, dropped)
    return best_of_cell(observations) if best_of is BestOf.cell else observations


# --- column names ---------------------------------------------------------------------------------------

STANDARD = (
    *("run_id", "group", *(f"params_{kind.value}" for kind in ParamsKind), "tokens", "unique_tokens"),
    *("epochs", "flops", "loss", "loss_kind", "seed", "corpus", "corpus_hash", "tokenizer"),
    *("tokenizer_hash", "status", "diverged", "unfinished", "step"),
)


def load(path: Path) -> Table:
    return Table(path=path, rows=read_table(path))


def mapped(table: Table, columns: Mapping[str, str], names: Sequence[str] = ()) -> Table:
    """The table with the standard names beside its own; `names` may be mapped as well.

    Raises WrongInput for a name that is not known here, or a column that the table does not have.
    """
    known = (*STANDARD, *names)
    for name, own in columns.items():
        if name not in known:
            raise WrongInput(f"columns: {name!r} is no standard name{perhaps(name, known)}; {listed(known)}")
        if own not in table.columns:
            raise WrongInput(missing(table, own))
    owners = list(columns.values())
    if twice := sorted({own for own in owners if owners.count(own) > 1}):
        both = " and ".join(name for name, own in columns.items() if own == twice[0])
        raise WrongInput(f"columns: {twice[0]!r} cannot be both {both}")
    if not columns:
        return table
    rows = [{**row, **{name: row[own] for name, own in columns.items()}} for row in table.rows]
    return Table(path=table.path, rows=rows, skipped=table.skipped, flops_kind=table.flops_kind)


def with_body_and_head(table: Table) -> Table:
    """With the column params_body_and_head where the body and the head, or the embedding that serves as
    one, are given apart."""
    vocabulary = ("params_head", "params_embedding")
    names = {"params_non_embedding", *vocabulary} & set(table.columns)
    if "params_body_and_head" in table.columns or not names > {"params_non_embedding"}:
        return table

    def count(row: Cells) -> str:
        matrices = [value_of(row, name) for name in vocabulary]
        head = next((value for value in matrices if value > 0), math.nan)
        total = value_of(row, "params_non_embedding") + head
        return repr(total) if math.isfinite(total) else ""

    rows = [{**row, "params_body_and_head": count(row)} for row in table.rows]
    return replace(table, rows=rows)


def need(table: Table, names: Iterable[str]) -> None:
    """Raises WrongInput when the table lacks one of these columns."""
    for name in names:
        if name not in table.columns:
            raise WrongInput(missing(table, name))


def missing(table: Table, name: str) -> str:
    return f"{table.path} has no column {name!r}{perhaps(name, table.columns)}; {listed(table.columns)}"


def perhaps(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", perhaps {close[0]!r}" if close else ""


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return f"there are {', '.join(names[:SHOWN_COLUMNS])}{more}"


# --- rows -----------------------------------------------------------------------------------------------


def filtered(table: Table, where: Sequence[str]) -> tuple[list[tuple[str, Cells]], list[Skipped]]:
    """The rows that pass every filter, labelled; and the others, each with the first filter it fails."""
    filters = [parse_filter(text) for text in where]
    need(table, (f.column for f in filters))
    kept: list[tuple[str, Cells]] = []
    dropped = list(table.skipped)
    for at, row in enumerate(table.rows, start=1):
        label = label_of(row, f"row {at}")
        if refused := first_refusal(row, filters):
            dropped.append(Skipped(label, f"where {refused}"))
        else:
            kept.append((label, row))
    if not kept and table.rows:
        raise WrongInput(f"{table.path}: no row of {len(table.rows)} passes where={list(where)}")
    return kept, dropped


def label_of(cells: Cells, otherwise: str) -> str:
    return cells.get("run_id") or otherwise


def value_of(cells: Cells, column: str) -> float:
    found = number(cells.get(column, ""))
    return math.nan if found is None else found


def not_finite(names: Sequence[str], values: Sequence[float]) -> str:
    bad = next((name for name, value in zip(names, values, strict=True) if not math.isfinite(value)), None)
    return f"{bad} is missing or not a number" if bad else ""


def row_of_cells(label: str, cells: Cells, params_column: str) -> Row:
    return Row(
        name=label,
        params=value_of(cells, params_column),
        tokens=value_of(cells, "tokens"),
        flops=value_of(cells, "flops") if cells.get("flops") else None,
        loss=value_of(cells, "loss"),
        group=cells.get("group", ""),
        seed=cells.get("seed", ""),
        corpus_hash=cells.get("corpus_hash", ""),
        tokenizer_hash=cells.get("tokenizer_hash", ""),
        fault=fault_of(cells),
    )


def fault_of(cells: Cells) -> str:
    """Why the table itself says that a row is not a finished run."""
    for flag in ("diverged", "unfinished"):
        if cells.get(flag, "").lower() in ("1", "1.0", "true", "yes"):
            return flag
    status = cells.get("status", "").lower()
    return "" if status in FINISHED else status


def loss_unit_of(path: Path, rows: Sequence[Cells], loss_column: str) -> LossUnit:
    """Bits per byte when the column or loss_kind says so, else nats per token. Raises on a mixture."""
    said = [f"{loss_column} {row.get('loss_kind', '')}".lower() for row in rows]
    bits = [bool(re.search(r"bits.per.byte|\bbpb", text)) for text in said]
    if any(bits) and not all(bits):
        raise WrongInput(f"{path}: loss_kind mixes bits per byte with nats per token; filter with where=")
    return LossUnit.bits_per_byte if bits and bits[0] else LossUnit.nats_per_token
