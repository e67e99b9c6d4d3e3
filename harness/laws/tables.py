"""Observations from a table (CSV, JSONL or Parquet) in the standard column names, and row filters.

Columns: run_id, group, params_total, params_non_embedding, tokens, flops, loss, loss_kind, seed; optional
corpus_hash, tokenizer_hash, status, diverged, unfinished. Others may be used in filters.
"""

from __future__ import annotations

import csv
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import WrongInput
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_GIVEN, Observations, Row, best_of_cell, collect
from harness.runs import Skipped

Cells = dict[str, str]

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
FILTER = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
FINISHED = {"", "done", "finished", "ok", "completed"}


class BestOf(Enum):
    """How repeated rows are reduced before a fit."""

    none = "none"
    cell = "cell"


@dataclass(frozen=True)
class Filter:
    """One condition on a column, such as loss<3.5. Numbers compare as numbers, else as text."""

    column: str
    symbol: str
    value: str

    def keeps(self, cell: str) -> bool:
        """An empty cell passes `!=` alone."""
        left, right = number(cell), number(self.value)
        if left is not None and right is not None:
            return OPERATORS[self.symbol](left, right)
        if self.symbol in ("=", "!="):
            return OPERATORS[self.symbol](cell, self.value)
        return False


def parse_filter(text: str) -> Filter:
    """Raises WrongInput when the text is not `column OP value`."""
    match = FILTER.fullmatch(text)
    if match is None or match[3] == "":
        raise WrongInput(f"where: cannot read {text!r}; write column=value, or use != < <= > >=")
    found = Filter(match[1], match[2], match[3])
    if found.symbol not in ("=", "!=") and number(found.value) is None:
        raise WrongInput(f"where: {text!r} compares by size, so {found.value!r} must be a number")
    return found


def number(text: str) -> float | None:
    """The finite number a cell holds, if any."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def observations_from_table(
    path: Path,
    where: Sequence[str] = (),
    params: ParamsKind = ParamsKind.total,
    best_of: BestOf = BestOf.none,
    loss_column: str = "loss",
) -> Observations:
    """Rows of a table that pass every filter.

    Raises WrongInput for a missing or damaged file, column or filter, mixed loss units, or an N that the
    table does not hold; CannotAnswer when nothing usable is left or corpora differ.
    """
    table = read_table(path)
    filters = [parse_filter(text) for text in where]
    columns = list(table[0]) if table else []
    params_column = f"params_{params.value}"
    for name in (*(f.column for f in filters), params_column, "tokens", loss_column):
        if name not in columns:
            raise WrongInput(f"{path} has no column {name!r}; it has {', '.join(columns)}")
    kept = [row for row in table if all(f.keeps(row[f.column]) for f in filters)]
    if not kept and table:
        raise WrongInput(f"{path}: no row of {len(table)} passes where={list(where)}")
    if not any(row[params_column] for row in kept):
        raise WrongInput(f"{path}: {params_column} is empty on all {len(kept)} rows; choose another params=")
    rows = [row_of_cells(row, at, params_column, loss_column) for at, row in enumerate(kept)]
    left_out = [Skipped("(filter)", f"where={list(where)}")] * (len(table) - len(kept))
    observations = collect(rows, params, loss_unit_of(path, kept, loss_column), FLOPS_GIVEN, left_out)
    return best_of_cell(observations) if best_of is BestOf.cell else observations


def row_of_cells(cells: Cells, at: int, params_column: str, loss_column: str) -> Row:
    def value(column: str) -> float:
        found = number(cells.get(column, ""))
        return math.nan if found is None else found

    return Row(
        name=cells.get("run_id") or f"row {at + 1}",
        params=value(params_column),
        tokens=value("tokens"),
        flops=value("flops") if cells.get("flops") else None,
        loss=value(loss_column),
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


def read_table(path: Path) -> list[Cells]:
    """All rows as text, by the file's extension. Raises WrongInput when it cannot be read."""
    readers = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WrongInput(f"{path}: unknown kind of table; use .csv, .jsonl or .parquet")
    try:
        rows = reader(path)
    except FileNotFoundError as error:
        raise WrongInput(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise WrongInput(f"{path} cannot be read as {path.suffix}: {error}") from error
    if not rows:
        raise WrongInput(f"{path} holds no rows")
    return rows


def read_csv(path: Path) -> list[Cells]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        names = list(reader.fieldnames or [])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise WrongInput(f"{path} has the column {twice[0]!r} twice")
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise WrongInput(f"{path}: row {number} has more fields than the header's {len(names)}")
    return rows


def read_jsonl(path: Path) -> list[Cells]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be an object")
    return as_text(rows)


def read_parquet(path: Path) -> list[Cells]:
    import pyarrow.parquet as parquet

    return as_text(parquet.read_table(path).to_pylist())


def as_text(rows: Sequence[dict[str, Any]]) -> list[Cells]:
    """Every row with every column; a missing value is the empty text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{c: "" if row.get(c) is None else str(row[c]) for c in columns} for row in rows]
