"""Tables in a file: CSV, JSONL or Parquet, one run a row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from harness.errors import WrongInput
from harness.laws.sources.table import Cells, as_text


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
